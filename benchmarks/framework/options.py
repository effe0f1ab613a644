"""How a benchmark is to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.framework.errors import UnknownPrecision
from benchmarks.harness.noise import NOTHING_WATCHED, NoiseWatch, watch_cores
from contract.system import available_cores

FP32 = "fp32"
PRECISIONS = (FP32, "int8", "bf16")
LEAST_RUNS = 30  # of each variant, for publication

_Value = TypeVar("_Value")


class Scale(StrEnum):
    """How much is measured. full: what may be published. quick: less of it, in minutes. tiny: says nothing but that it works."""

    full = "full"
    quick = "quick"
    tiny = "tiny"


@dataclass(frozen=True)
class Runs:
    """rounds: counted runs of each variant, warmup: uncounted ones before."""

    rounds: int
    warmup: int

    def __str__(self) -> str:
        return f"{self.rounds} runs after {self.warmup}"


def _silent(sentence: str) -> None:
    pass


@dataclass(frozen=True)
class Options:
    """scratch: a folder for networks, of several GB on the full scale. Benchmarks that run with the same options share what is made.

    precision: some of PRECISIONS with commas between them. threads: of every variant, None: as many as this process has cores. say: is told
    what is being measured. only: words that choose among what the scale has, none: all of it. runs: counted runs of each variant, None: as
    many as the scale has. Raises UnknownPrecision.
    """

    scratch: Path
    scale: Scale = Scale.full
    precision: str = FP32
    threads: int | None = None
    say: Callable[[str], None] = _silent
    only: tuple[str, ...] = ()
    runs: int | None = None
    _made: dict[Callable[[Path], Any], Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for precision in self.precisions:
            if precision not in PRECISIONS:
                raise UnknownPrecision(precision, PRECISIONS)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Return the precisions, each once: fp32 first, with which the others are compared, and then as they were given."""
        return tuple(dict.fromkeys((FP32, *(word.strip() for word in self.precision.split(",")))))

    @property
    def cores(self) -> int:
        """Return the threads of every variant."""
        return self.threads or available_cores()

    def once(self, make: Callable[[Path], _Value]) -> _Value:
        """Return what `make` makes of the scratch folder; what has been made is kept for all benchmarks that run with these options."""
        if make not in self._made:
            self._made[make] = make(self.scratch)
        found: _Value = self._made[make]
        return found

    def watch(self) -> NoiseWatch:
        """Return what watches the cores that this process may use. On the tiny scale nothing is watched."""
        return NOTHING_WATCHED if self.scale is Scale.tiny else watch_cores(self.cores)

    def pick(self, full: _Value, quick: _Value, tiny: _Value) -> _Value:
        """Return what belongs to the scale."""
        return {Scale.full: full, Scale.quick: quick, Scale.tiny: tiny}[self.scale]

    def runs_of(self, full: Runs, quick: Runs, tiny: Runs) -> Runs:
        """Return the runs of the scale, or as many as were asked for, after a third of them at most."""
        found = self.pick(full, quick, tiny)
        return found if self.runs is None else Runs(self.runs, min(found.warmup, max(1, self.runs // 3)))
