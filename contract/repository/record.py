"""What a task's whole network answered when it was exported: a few numbers, for a server to compare its own answer with."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE = 1  # the number of the way in which `contract.repository.sample` makes the input; another way needs another number
MOST_VALUES = 16


@dataclass(frozen=True)
class OutputRecord:
    """One output for one row. values: those of `recorded_places`, in order. scale: how much the output varies, in its own unit."""

    values: tuple[float, ...]
    scale: float


@dataclass(frozen=True)
class ParityRecord:
    """The answer to one row of sample input. outputs: those of the task in order, None for one that is not compared.

    tolerance: how much a value may differ, in units of its output's scale. sample: the way in which the input was made.
    """

    outputs: tuple[OutputRecord | None, ...]
    tolerance: float
    sample: int = SAMPLE

    def to_json(self) -> str:
        """Return the record as text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ParityRecord:
        """Return what `to_json` wrote. Raises ValueError."""
        try:
            data = json.loads(text)
            outputs = tuple(None if output is None else _output(output) for output in data["outputs"])
            return cls(outputs, _finite(data["tolerance"]), int(data["sample"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"parity_sample: {error}") from error


def recorded_places(size: int) -> NDArray[np.int64]:
    """Return the places, in a flat output of `size` values per row, of those that are recorded: evenly spread, 16 at most."""
    count = min(size, MOST_VALUES)
    return np.arange(count) * size // max(count, 1)


def _output(data: Any) -> OutputRecord:
    return OutputRecord(_finite_all(data["values"]), _finite(data["scale"]))


def _finite_all(numbers: Sequence[Any]) -> tuple[float, ...]:
    return tuple(_finite(number) for number in numbers)


def _finite(number: Any) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number that can be compared")
    return value
