"""An engine on plain functions, without model files: for tests of what runs, and for trying a plan out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.engines.base import Answer, Array, SegmentRun, SegmentStatistics
from serving.engines.counting import RunCounter
from serving.engines.execution import execute
from serving.errors import EngineError, NotReady
from serving.plan import ExecutionPlan


class InMemoryEngine:
    """Runs segments as functions, and records every run in `runs`.

    A function takes the segment's inputs, arrays of shape (n, ...), and returns its output of shape (n, ...), or a tuple of several.
    """

    def __init__(self, functions: Mapping[str, Callable[..., NDArray[Any] | tuple[NDArray[Any], ...]]]) -> None:
        self.runs: list[SegmentRun] = []
        self._functions = dict(functions)
        self._counter = RunCounter(functions)
        self._ready = False

    async def start(self) -> None:
        """Be ready; there is nothing to load."""
        self._ready = True

    async def aclose(self) -> None:
        """Stop being ready."""
        self._ready = False

    async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array]) -> Answer:
        """Run `plan` on `inputs` in the caller's thread. Raises EngineError when a function is missing or fails."""
        if not self._ready:
            raise NotReady("The engine is not started.")
        answer = execute(plan, inputs, self._run_segment)
        self.runs.extend(answer.runs)
        for run in answer.runs:
            self._counter.add(run)
        return answer

    def statistics(self) -> Mapping[str, SegmentStatistics]:
        """Return what each function has done so far."""
        return self._counter.totals()

    def _run_segment(self, name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        if name not in self._functions:
            raise EngineError(f"There is no function for segment {name!r}.")
        try:
            results = self._functions[name](*inputs)
            return [np.asarray(result) for result in (results if isinstance(results, tuple) else (results,))]
        except Exception as error:
            raise EngineError(f"Segment {name!r} failed: {error}") from error
