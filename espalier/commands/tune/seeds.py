"""Trains one method with several seeds, and reports what comes of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from tuning.network.checkpoint import TaskCheckpoint
    from tuning.training.methods import Method
    from tuning.training.trainer import Trainer


@dataclass(frozen=True)
class SeedScores:
    """What one seed reached. Accuracies in [0, 1]; train_loss: mean over the last epoch; seconds: of training."""

    seed: int
    test_accuracy: float
    train_accuracy: float
    train_loss: float
    seconds: float


OnProgress = Callable[[int, int, int], None]  # (seed, epochs done, epochs in all)
OnFirst = Callable[["TaskCheckpoint"], None]


def run_seeds(
    trainer: Trainer, method: Method, seeds: Sequence[int], on_progress: OnProgress, on_first: OnFirst
) -> list[SeedScores]:
    """Train `method` once per seed; `on_first` gets the first seed's checkpoint as soon as it is there."""
    from tuning.training.fit import make_checkpoint

    results = []
    for number, seed in enumerate(seeds):
        prepared = trainer.prepare(method, seed)
        trained = trainer.run(prepared, seed=seed, on_epoch=partial(on_progress, seed))
        checkpoint = make_checkpoint(trainer, prepared, trained)
        if number == 0:
            on_first(checkpoint)
        results.append(SeedScores(seed=seed, seconds=trained.seconds, **checkpoint.scores))
    return results


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation, None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def seeds_table(results: Sequence[SeedScores]) -> Table:
    """Return the accuracies by seed, and their mean and standard deviation."""
    table = Table("seed", "test accuracy", "train accuracy", "train loss", "seconds")
    for result in results:
        table.add_row(
            str(result.seed),
            f"{result.test_accuracy:.3f}",
            f"{result.train_accuracy:.3f}",
            f"{result.train_loss:.4f}",
            f"{result.seconds:.1f}",
        )
    table.add_section()
    table.add_row("mean ± std", _spread([r.test_accuracy for r in results]), _spread([r.train_accuracy for r in results]), "", "")
    return table


def report(trainer: Trainer, method: Method, results: Sequence[SeedScores], checkpoint: Path) -> dict[str, Any]:
    """Return all numbers, options and versions, for JSON."""
    from tuning.network.libraries import versions

    mean, deviation = mean_and_deviation([result.test_accuracy for result in results])
    data = trainer.data
    return {
        "method": asdict(method),
        "backbone": json.loads(trainer.backbone.spec.to_json()),
        "data": {
            "name": data.name,
            "labels": list(data.labels),
            "train_images": len(data.train),
            "test_images": len(data.test),
        },
        "options": {**asdict(trainer.options), "cache_folder": str(trainer.options.cache_folder or "") or None},
        "compute": asdict(trainer.compute),
        "test_accuracy": {"mean": mean, "std": deviation},
        "seeds": [asdict(result) for result in results],
        "checkpoint": {"file": str(checkpoint), "seed": results[0].seed},
        "versions": versions(),
    }


def _spread(values: Sequence[float]) -> str:
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"
