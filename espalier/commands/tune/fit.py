"""`espalier tune fit`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from contract.kinds.labels import Labels
from espalier.commands.options.methods import MethodOptions, check_method, find_method
from espalier.commands.options.tables import Tables
from espalier.commands.options.training import Augmentation, Learning, Machine, make_fit_options, open_store
from espalier.commands.options.tune import (
    BackboneOption,
    DataOption,
    ForceOption,
    Images,
    Weights,
    check_writable,
    remark,
    write_json,
)
from espalier.console import console, loading, progress_bars

if TYPE_CHECKING:
    from tuning.network.checkpoint import TaskCheckpoint
    from tuning.training.methods import Method
    from tuning.training.trainer import Trainer


@dataclass(frozen=True)
class _SeedScores:
    """What one seed reached. reached: as the checkpoint has it, "test_accuracy" in [0, 1], say; seconds: of training."""

    seed: int
    reached: Mapping[str, float]
    seconds: float

    def as_data(self) -> dict[str, float]:
        """Return the numbers by name."""
        return {"seed": self.seed, **self.reached, "seconds": self.seconds}


_OnProgress = Callable[[int, int, int], None]  # (seed, epochs done, epochs in all)
_OnFirst = Callable[["TaskCheckpoint"], None]


def fit(
    *,
    backbone: BackboneOption,
    data: DataOption,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The task checkpoint to write (.safetensors).")],
    tables: Tables,
    wanted: MethodOptions,
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
    check_method(wanted)
    table = tables.options()

    with loading():
        from tuning.training.trainer import Trainer

    options = make_fit_options(learning, augmentation, machine)
    loaded = weights.open(backbone)
    plan = find_method(wanted, loaded, learning.epochs)
    task_data = images.open(data, loaded.spec.preprocessing, table)
    finds = isinstance(task_data.kind, Labels) and not tables.says_thresholds
    if finds and task_data.validation is None:
        remark("Thresholds: 0.5 of every label. They are found where the table has the splits train, val and test.")
    finds = finds and task_data.validation is not None
    with progress_bars() as bar, closing(open_store(options)) as store:
        trainer = Trainer(loaded, task_data, options, store)
        results = _run_seeds(
            trainer,
            plan,
            range(learning.seed, learning.seed + seeds),
            lambda number, done, total: bar("Tuning" if seeds == 1 else f"Tuning, seed {number}", done, total),
            lambda tuned: _keep(tuned, out, finds),
            finds,
        )
    if trainer.objective.remark:
        remark(trainer.objective.remark)
    if seeds > 1:
        console.print(_seeds_table(results))
    if report_file is not None:
        write_json(report_file, _report(trainer, plan, results, out))
    first = results[0]
    whose = f" (seed {first.seed})" if seeds > 1 else ""
    scores = ", ".join(f"{name} {_number(value)}" for name, value in first.reached.items())
    console.print(f"Wrote {escape(str(out))}{whose}: {plan.name}, {escape(scores)}.", soft_wrap=True)


def _run_seeds(
    trainer: Trainer, method: Method, seeds: Sequence[int], on_progress: _OnProgress, on_first: _OnFirst, finds: bool
) -> list[_SeedScores]:
    """Train `method` once per seed; `on_first` gets the first seed's checkpoint as soon as it is there.

    finds: thresholds are, on the validation split, which is not learnt from then.
    """
    from tuning.training.fit import make_checkpoint
    from tuning.training.thresholds import find_thresholds, learnt_rows

    results = []
    rows = learnt_rows(trainer.data) if finds else None
    for number, seed in enumerate(seeds):
        prepared = trainer.prepare(method, seed)
        trained = trainer.run(prepared, rows, seed, on_epoch=partial(on_progress, seed))
        kind = Labels(find_thresholds(trainer, trained)) if finds else None
        checkpoint = make_checkpoint(trainer, prepared, trained, rows, kind)
        if number == 0:
            on_first(checkpoint)
        results.append(_SeedScores(seed=seed, reached=checkpoint.scores, seconds=trained.seconds))
    return results


def _keep(tuned: TaskCheckpoint, out: Path, found: bool) -> None:
    """Write the checkpoint, and say which thresholds were found."""
    from tuning.network.checkpoint import save_task

    save_task(tuned, out)
    if found and isinstance(tuned.kind, Labels):
        each = ", ".join(f"{label} {tuned.kind.threshold(index):.3f}" for index, label in enumerate(tuned.labels))
        remark(f"Thresholds, by F1 on the validation split, which was not learnt from: {each}.")


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation, None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _seeds_table(results: Sequence[_SeedScores]) -> Table:
    """Return what was reached by seed, and of all but the loss mean and standard deviation."""
    names = list(results[0].reached)
    table = Table("seed", *(escape(name.replace("_", " ")) for name in names), "seconds")
    for result in results:
        table.add_row(
            str(result.seed),
            *(f"{result.reached[name]:.4f}" if name == "train_loss" else _number(result.reached[name]) for name in names),
            f"{result.seconds:.1f}",
        )
    table.add_section()
    spreads = ["" if name == "train_loss" else _spread([result.reached[name] for result in results]) for name in names]
    table.add_row("mean ± std", *spreads, "")
    return table


def _report(trainer: Trainer, method: Method, results: Sequence[_SeedScores], checkpoint: Path) -> dict[str, Any]:
    """Return all numbers, options and versions, for JSON."""
    from tuning.network.libraries import versions

    tested = [name for name in results[0].reached if name.startswith("test_")]
    spreads = {name: _mean_and_deviation([result.reached[name] for result in results]) for name in tested}
    data = trainer.data
    return {
        "method": asdict(method),
        "backbone": json.loads(trainer.backbone.spec.to_json()),
        "data": {
            "name": data.name,
            "kind": data.kind.word(),
            "labels": list(data.labels),
            "train_images": len(data.train),
            "test_images": len(data.test),
        },
        "options": {**asdict(trainer.options), "cache_folder": str(trainer.options.cache_folder or "") or None},
        "compute": asdict(trainer.compute),
        **{name: {"mean": mean, "std": deviation} for name, (mean, deviation) in spreads.items()},
        "seeds": [result.as_data() for result in results],
        "checkpoint": {"file": str(checkpoint), "seed": results[0].seed},
        "versions": versions(),
    }


def _spread(values: Sequence[float]) -> str:
    mean, deviation = _mean_and_deviation(values)
    return _number(mean) if deviation is None else f"{_number(mean)} ± {_number(deviation)}"


def _number(value: float) -> str:
    """Return three decimals, or four digits of what they would not show well."""
    return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.4g}"
