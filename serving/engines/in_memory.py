"""An engine on plain functions, without model files: for tests of what runs, and for trying a plan out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from contract.dtypes import Array
from contract.errors import RepositoryError
from contract.plan import ExecutionPlan
from contract.repository.model import Repository, Segment
from serving.engines.base import Answer, Call, SegmentRun, SegmentStatistics
from serving.engines.scheduling.scheduler import MAX_QUEUE_ROWS, Scheduler
from serving.engines.statistics import RunStatistics
from serving.errors import EngineError


class InMemoryEngine:
    """Runs segments as functions, and records every run in `runs`.

    A function takes the segment's inputs, arrays of shape (n, ...), and returns its output of shape (n, ...), or a tuple of several.
    max_batch_rows: the most rows of a run. workers: runs at a time.
    """

    batches_elsewhere: ClassVar[bool] = False

    def __init__(
        self,
        functions: Mapping[str, Callable[..., NDArray[Any] | tuple[NDArray[Any], ...]]],
        *,
        max_batch_rows: int = 1 << 30,
        max_queue_rows: int = MAX_QUEUE_ROWS,
        workers: int = 1,
    ) -> None:
        self.runs: list[SegmentRun] = []
        self.released: set[str] = set()
        self._functions = dict(functions)
        self._statistics = RunStatistics(functions)
        self._scheduler = Scheduler(
            self._run_segment,
            lambda group: max_batch_rows,
            workers=workers,
            max_queue_rows=max_queue_rows,
            on_run=self._record,
        )

    @property
    def rounding(self) -> float:
        """Return 0: nothing is rounded here."""
        return 0.0

    async def start(self) -> None:
        """Be ready; there is nothing to load."""
        self._scheduler.start()

    async def aclose(self) -> None:
        """Finish what was asked for; stop being ready."""
        await self._scheduler.aclose()

    async def load(self, repository: Repository) -> None:
        """Raise RepositoryError when there is no function for a segment of `repository`."""
        missing = sorted(repository.segments.keys() - self._functions.keys())
        if missing:
            raise RepositoryError(f"There is no function for segment {missing[0]!r}.")

    async def release(self, segments: Collection[str]) -> None:
        """Note in `released` that nobody will ask for these, and forget what they have done."""
        self.released.update(segments)
        self._statistics.drop(segments)
        self._scheduler.forget(segments)

    async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call = Call()) -> Answer:  # noqa: B008 (frozen)
        """Run `plan` on `inputs`. A function that is missing or fails is named in the answer's errors."""
        return await self._scheduler.infer(plan, inputs, call)

    def try_segment(self, segment: Segment, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return what the function of `segment` gives; not recorded. Raises EngineError."""
        return self._run_segment(segment.name, inputs)

    def check_room(self, rows: int, call: Call) -> None:
        """Raise QueueFull when so many rows more may not wait now."""
        self._scheduler.check_room(rows, call)

    def queued_rows(self) -> Mapping[str, int]:
        """Return the rows that wait, by tenant."""
        return self._scheduler.queued_rows()

    def statistics(self) -> Mapping[str, SegmentStatistics]:
        """Return what each function has done so far."""
        return self._statistics.totals()

    async def refresh(self) -> None:
        """Do nothing: what ran here is counted when it has run."""

    def loaded(self) -> Mapping[str, int]:
        """Return nought bytes for every function."""
        return dict.fromkeys(self._functions, 0)

    def computed_by(self) -> Mapping[str, int]:
        """Return how many functions there are."""
        return {"functions": len(self.loaded())}

    def unavailable(self) -> Collection[str]:
        """Return nothing: there are no files."""
        return ()

    def _record(self, run: SegmentRun, waits_s: Sequence[float]) -> None:
        self.runs.append(run)
        self._statistics.add(run, waits_s)

    def _run_segment(self, name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        if name not in self._functions:
            raise EngineError(f"There is no function for segment {name!r}.")
        try:
            results = self._functions[name](*inputs)
            return [np.asarray(result) for result in (results if isinstance(results, tuple) else (results,))]
        except Exception as error:
            raise EngineError(f"Segment {name!r} failed: {error}") from error
