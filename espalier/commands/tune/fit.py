"""`espalier tune fit`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from espalier.commands.options.methods import LORA_RANK, MethodOptions, check_method, find_method
from espalier.commands.options.training import Augmentation, Learning, Machine, make_fit_options, open_store
from espalier.commands.options.tune import BackboneOption, DataOption, ForceOption, Images, Weights, check_writable, write_json
from espalier.commands.tune.seeds import report, run_seeds, seeds_table
from espalier.console import console, progress_bars

_METHODS = (
    "linear-probe, all-blocks, full-finetuning, lp-ft, gradual-unfreezing, auto-rgn, norm-only, surgical (with --group), "
    "lora (with --rank)"
)


def fit(
    *,
    backbone: BackboneOption,
    data: DataOption,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The task checkpoint to write (.safetensors).")],
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES|none|all",
            help="What to tune, separated by commas: blocks or other modules and parameters, by name or pattern (layer4.1, "
            "blocks.*.attn, cls_token); norm, attention: all normalisation layers, all attention modules; PATH:norm: those under a "
            "path or pattern (layer4.*:norm; *:norm where a part itself is called norm). none: only a new head; all: every block. "
            "Needed, unless --method is given.",
        ),
    ] = None,
    all_weights: Annotated[bool, typer.Option("--all-weights", help="With --blocks all: the stem and outer norms, too.")] = False,
    siamese: Annotated[
        bool, typer.Option("--siamese", help="The head sees the frozen features beside the tuned ones, from the shared trunk.")
    ] = False,
    warm_head: Annotated[
        bool, typer.Option("--warm-head", help="Half of the epochs go to the head alone first (as LP-FT does).")
    ] = False,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Instead of --blocks, a method to compare with: {_METHODS}.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help=f"Of --method lora (default {LORA_RANK}).")] = None,
    group: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of --method surgical: which of the (up to four) contiguous groups of blocks, 1 next to the input."
        ),
    ] = None,
    images: Images,
    weights: Weights,
    learning: Learning,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="Train so many times, with this seed and those after it, and report mean and standard deviation. The checkpoint "
            "written is the first seed's: to pick the best by its test accuracy would be cheating.",
        ),
    ] = 1,
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.json", help="Write all numbers, options and versions there.")
    ] = None,
    augmentation: Augmentation,
    machine: Machine,
    force: ForceOption = False,
) -> None:
    """Fine-tune some blocks and a new head on a task, and write them as a task checkpoint.

    [dim]espalier tune fit --backbone resnet50.a1_in1k --data flowers/ --blocks layer4.2 --out flowers.safetensors[/]
    """
    check_writable(out, force=force)
    if report_file is not None:
        check_writable(report_file, ".json", "--report", force=force)
    wanted = MethodOptions(blocks, all_weights, siamese, warm_head, method, rank, group)
    check_method(wanted)

    from tuning.network.checkpoint import save_task
    from tuning.training.trainer import Trainer

    options = make_fit_options(learning, augmentation, machine)
    loaded = weights.open(backbone)
    plan = find_method(wanted, loaded, learning.epochs)
    task_data = images.open(data, loaded.spec.preprocessing)
    with progress_bars() as bar, closing(open_store(options)) as store:
        trainer = Trainer(loaded, task_data, options, store)
        results = run_seeds(
            trainer,
            plan,
            range(learning.seed, learning.seed + seeds),
            lambda number, done, total: bar("Tuning" if seeds == 1 else f"Tuning, seed {number}", done, total),
            lambda tuned: save_task(tuned, out),
        )
    if seeds > 1:
        console.print(seeds_table(results))
    if report_file is not None:
        write_json(report_file, report(trainer, plan, results, out))
    first = results[0]
    whose = f" (seed {first.seed})" if seeds > 1 else ""
    scores = (
        f"test_accuracy {first.test_accuracy:.3f}, train_accuracy {first.train_accuracy:.3f}, train_loss {first.train_loss:.3f}"
    )
    console.print(f"Wrote {escape(str(out))}{whose}: {plan.name}, {scores}.", soft_wrap=True)
