"""The rows that networks are calibrated with, and the others on which tasks are judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from contract.dtypes import Array
from contract.repository import Task
from contract.repository.model import Precision
from exporter.precision.errors import BadMaxDrop, NeedlessExamples, NeedsExamples

MOST_TO_CALIBRATE = 128  # rows: what leaves a segment is kept for all of them until the segments behind it are quantised
MOST_TO_JUDGE = 1000  # rows: a share of a hundredth is known to a half of it then


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of the only input of tasks, (n, ...) as they take them. Two are the same only if they are one object.

    calibrate: to find the ranges with. judge: none of these, to compare answers on. source: where they are from.
    """

    source: str
    calibrate: Array = field(repr=False)
    judge: Array = field(repr=False)


@dataclass(frozen=True, eq=False)
class Examples:
    """The rows of one task.

    targets: int64, the right class of each row of `rows.judge`, a place among the task's outputs; None where nobody knows.
    unlabelled: why not, a clause. remarks: what was assumed and left out, in sentences.
    """

    rows: Rows
    targets: Array | None = field(default=None, repr=False)
    unlabelled: str = ""
    remarks: tuple[str, ...] = ()


ExamplesOf = Callable[[Task], Examples]


@dataclass(frozen=True)
class PrecisionOptions:
    """Which precision tasks that come are to have.

    precision: None: nobody has said; fp32, and where they would share what is in int8, a refusal. examples: returns the rows of a task;
    raises ExportError, TuningError. max_drop: the largest share of answers that may be lost to int8, from 0 up to 1.
    Raises NeedsExamples, NeedlessExamples, BadMaxDrop.
    """

    precision: Precision | None = None
    examples: ExamplesOf | None = None
    max_drop: float = 0.005

    def __post_init__(self) -> None:
        if self.precision == "int8" and self.examples is None:
            raise NeedsExamples
        if self.precision != "int8" and self.examples is not None:
            raise NeedlessExamples
        if not 0 <= self.max_drop < 1:
            raise BadMaxDrop(self.max_drop)


Variant = Literal["int8", "int8, branch in fp32", "fp32"]
