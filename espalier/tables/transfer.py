"""Shows what `espalier tune transfer` found: tables for people, and data for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from contract.units import percent
from tuning.transfer.compare import Spread, TransferRun, mean_weights, spread
from tuning.transfer.weights import TeacherWeights


def methods_table(runs: Sequence[TransferRun]) -> Table:
    """Return one row per method: mean accuracies in percent and their deviation over seeds."""
    table = _table("method", "seeds", "test accuracy", "training accuracy")
    for method, some in _by_method(runs).items():
        test, train = spread([run.test_accuracy for run in some]), spread([run.train_accuracy for run in some])
        table.add_row(method, str(len(some)), _percent(test, len(some)), _percent(train, len(some)))
    return table


def weights_table(weights: Mapping[str, TeacherWeights]) -> Table:
    """Return one row per teacher, with what `aft` learned of its dimensions."""
    table = _table("teacher", "features", "weight", "quartiles", "over 0.5", "share", "before")
    for name, one in weights.items():
        table.add_row(
            escape(name),
            str(one.dimensions),
            f"{one.mean:.3f}",
            f"{one.quantiles[1]:.2f} - {one.quantiles[3]:.2f}",
            f"{one.above_half:.0%}",
            f"{one.share:.1%}",
            f"{one.share_at_start:.1%}",
        )
    table.caption = "weights start at 0.5; share: of all teachers' variance, weighted (before: equally)"
    table.caption_justify = "left"
    return table


def as_data(runs: Sequence[TransferRun]) -> dict[str, Any]:
    """Return everything as JSON-able data: per method every run, mean and deviation; the learned weights, mean over seeds."""
    return {
        "methods": {
            method: {
                "test_accuracy": asdict(spread([run.test_accuracy for run in some])),
                "train_accuracy": asdict(spread([run.train_accuracy for run in some])),
                "runs": [asdict(run) for run in some],
            }
            for method, some in _by_method(runs).items()
        },
        "teacher_weights": {name: asdict(one) for name, one in mean_weights(runs).items()},
    }


def _by_method(runs: Sequence[TransferRun]) -> dict[str, list[TransferRun]]:
    """Return the runs of each method, in their order."""
    found: dict[str, list[TransferRun]] = {}
    for run in runs:
        found.setdefault(run.method, []).append(run)
    return found


def _table(first: str, *numbers: str) -> Table:
    table = Table(first, box=SIMPLE_HEAD, pad_edge=False)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _percent(value: Spread, count: int) -> str:
    deviation = f" ± {percent(value.deviation)}" if count > 1 else ""
    return f"{percent(value.mean)} %{deviation}"
