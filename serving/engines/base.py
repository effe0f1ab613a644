"""The seam between deciding and computing: an engine answers an execution plan for some rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.plan import ExecutionPlan

Array = NDArray[np.generic]


@dataclass(frozen=True)
class SegmentRun:
    """One run of a segment, as it happened: how many rows, and how long it computed."""

    segment: str
    rows: int
    seconds: float


@dataclass(frozen=True)
class Answer:
    """The outputs of a plan by name, each of shape (rows, ...), and the runs that produced them in order."""

    outputs: Mapping[str, Array]
    runs: tuple[SegmentRun, ...]


@dataclass(frozen=True)
class SegmentStatistics:
    """What a segment has done since the engine started. `last_run_ms`: when it last ran, milliseconds since 1970; 0: never."""

    runs: int = 0
    rows: int = 0
    seconds: float = 0.0
    last_run_ms: int = 0


class Engine(Protocol):
    """Runs plans. `start` makes it ready (models loaded and warm), `aclose` lets go of everything."""

    async def start(self) -> None:
        """Load what is needed. Raises RepositoryError or EngineError; a failed start leaves nothing behind."""

    async def aclose(self) -> None:
        """Finish what is running and release the models. Does nothing on an engine that is not started."""

    async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array]) -> Answer:
        """Run `plan` on `inputs` (by name, each of shape (n, ...), n >= 1). Raises EngineError when a
        segment fails, NotReady before `start`.
        """

    def statistics(self) -> Mapping[str, SegmentStatistics]:
        """Return what each segment has done for requests so far; warming up does not count. Callable from any thread."""
