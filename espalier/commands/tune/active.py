"""`espalier tune active`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from espalier.commands.options.training import Augmentation, Learning, Machine, make_fit_options
from espalier.commands.options.tune import (
    AllImages,
    BackboneOption,
    DataOption,
    ForceOption,
    Weights,
    check_writable,
    parse_subset,
    remark,
    write_json,
)
from espalier.console import console, loading, progress_bars


def active(
    *,
    backbone: BackboneOption,
    pool: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Images without labels: write which to label next. Needs --task and --out."),
    ] = None,
    task: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --pool: the task checkpoint that is to improve.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="With --pool: so many files to label next.")] = 100,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --pool: where they are written (.csv), the least certain first.")
    ] = None,
    data: DataOption = "",
    blocks: Annotated[str, typer.Option(metavar="NAMES|none|all", help="Blocks to tune, as in `tune fit`.")] = "none",
    sizes: Annotated[str, typer.Option(metavar="N,N,...", help="Labels in all, round by round.")] = "100,400,500,1500",
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions, with the seeds from --seed on.")] = 3,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all rounds as JSON.")] = None,
    images: AllImages,
    weights: Weights,
    learning: Learning,
    augmentation: Augmentation,
    machine: Machine,
    force: ForceOption = False,
) -> None:
    """Choose what to label next: the images that a task is least sure of.

    With --pool, the next files to label in a folder of images without labels. With --data, a simulation on labelled data: how much is
    won over choosing at random.

    [dim]espalier tune active --backbone resnet50.a1_in1k --pool new/ --task flowers.safetensors --count 100 --out next.csv[/]
    [dim]espalier tune active --backbone resnet50.a1_in1k --data flowers/ --blocks layer4.2 --sizes 100,400,500 --report active.json[/]
    """
    if (pool is None) == (not data):
        raise typer.BadParameter("give either --pool, to choose what to label next, or --data, to simulate that.")
    if pool is not None:
        if task is None or out is None:
            raise typer.BadParameter("--pool needs the task checkpoint (--task) and where to write the files to label (--out).")
        check_writable(out, ".csv", force=force)
        _choose(backbone, weights, pool, task, count, out, machine.device)
        return

    with loading():
        from tuning.active.margin import check_sizes, compare, summarise
        from tuning.training.features import FeatureStore
        from tuning.training.fit import find_subset
        from tuning.training.methods import subtuning
        from tuning.training.trainer import Trainer

    if report is not None:
        check_writable(report, ".json", "--report", force=force)
    wanted = _parse_sizes(sizes)
    loaded = weights.open(backbone)
    task_data = images.open(data, loaded.spec.preprocessing)
    check_sizes(wanted, len(task_data.train))
    options = make_fit_options(learning, augmentation, machine)
    method = subtuning(find_subset(loaded, parse_subset(blocks)), learning.epochs)
    all_seeds = range(learning.seed, learning.seed + seeds)
    with progress_bars() as show, closing(FeatureStore(options.cache_bytes, options.cache_folder)) as store:
        trainer = Trainer(loaded, task_data, options, store)
        found = compare(trainer, method, wanted, all_seeds, on_round=lambda done, total: show("Rounds", done, total))
    summary = summarise(found)
    _print(summary)
    if report is not None:
        about = {"backbone": loaded.spec.name, "data": task_data.name, "method": method.name, "subset": list(method.paths)}
        write_json(report, {**about, "epochs": learning.epochs, "seeds": list(all_seeds), "strategies": summary})
        console.print(f"Wrote {escape(str(report))}.", soft_wrap=True)


def _choose(backbone: str, weights: Weights, pool: Path, task: Path, count: int, out: Path, device: str) -> None:
    with loading():
        from tuning.active.unlabelled import rank_pool, write_candidates
        from tuning.network.checkpoint import load_task
        from tuning.training.compute import find_compute

    tuned = load_task(task)
    loaded = weights.open(backbone, like=tuned.backbone.preprocessing)
    with progress_bars() as show:
        ranking = rank_pool(
            loaded, tuned, pool, find_compute(device), on_image=lambda done, total: show("Looking at images", done, total)
        )
    remark(*ranking.remarks)
    chosen = ranking.candidates[:count]
    write_candidates(chosen, out)
    console.print(
        f"Wrote {escape(str(out))}: {len(chosen)} of {len(ranking.candidates)} images to label next, "
        f"margins {chosen[0].margin:.3f} to {chosen[-1].margin:.3f}.",
        soft_wrap=True,
    )


def _parse_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of numbers, as 100,400,500.", param_hint="--sizes") from error


def _print(summary: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    table = Table("labels", *(f"accuracy, %: {strategy}" for strategy in summary), box=SIMPLE_HEAD, pad_edge=False)
    for rounds in zip(*summary.values(), strict=True):
        table.add_row(str(rounds[0]["labels"]), *(f"{100 * r['mean']:.1f} ± {100 * r['deviation']:.1f}" for r in rounds))
    console.print(table)
