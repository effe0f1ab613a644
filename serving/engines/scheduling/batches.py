"""Runs one segment for several requests at once, and gives each its rows of what came out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from contract.dtypes import Array
from contract.errors import EspalierError
from serving.engines.base import SegmentRun
from serving.engines.device_tensors import is_on_device, stack
from serving.engines.scheduling.bundle_step import BundleStep, Part, shared_out
from serving.engines.scheduling.plan_execution import Group, PlanExecution, ReadyStep
from serving.errors import EngineError, SegmentClosed

RunSegment = Callable[[str, Sequence[Array]], Sequence[Array]]
RowLimit = Callable[[Group], int]  # the most rows of a run
OnRun = Callable[[SegmentRun, Sequence[float]], None]
OnTogether = Callable[[tuple[tuple[str, float], ...], SegmentRun, Sequence[float]], None]
# What a step gave, of a bundle in the place of an output also why that failed; or why all of it did.
Outcome = tuple[ReadyStep, Sequence[Array | EspalierError] | EspalierError, SegmentRun]


_NOTHING = np.empty(0)  # in the places of outputs that nobody takes


class SegmentTimes:
    """How long segments take: a running mean of seconds per row, or per volume where sizes are free (`ReadyStep.work`).

    Threads may share it: a run that gets lost is no harm.
    """

    def __init__(self) -> None:
        self._per_row: dict[str, float] = {}

    def per_row(self, segment: str) -> float:
        """Return the seconds of one row, or volume, 0 for a segment that has not run."""
        return self._per_row.get(segment, 0.0)

    def of(self, execution: PlanExecution) -> float | None:
        """Return how long all of `execution` will take; None where a segment has not run yet."""
        seconds = 0.0
        for step in execution.plan.steps:
            per_row = self._per_row.get(step.segment)
            if per_row is None:
                return None
            seconds += len(step.inputs) * per_row * (execution.volume if step.free else 1)
        return seconds * execution.rows

    def note(self, segment: str, work: int, seconds: float) -> None:
        """Learn from a run. work: of its steps together.

        One that took much longer than those before it counts as four times as long: most likely somebody else had the processor meanwhile.
        """
        known, found = self._per_row.get(segment), seconds / work
        self._per_row[segment] = found if not known else 0.8 * known + 0.2 * min(found, 4 * known)

    def forget(self, segments: Iterable[str]) -> None:
        """Know no more of segments that are gone."""
        for segment in segments:
            self._per_row.pop(segment, None)


class BatchRunner:
    """Runs batches: ready steps of one group. run_segment, limit, on_run: as of the scheduler. Callable from several threads at once.

    on_together: is told a run of several segments at once, with the share that each has of its seconds; None: on_run is, of each.
    """

    def __init__(self, run_segment: RunSegment, limit: RowLimit, on_run: OnRun, on_together: OnTogether | None = None) -> None:
        self._run_segment = run_segment
        self.limit = limit
        self.count = on_run
        self._count_together = on_together or self._count_each

    def run(self, batch: Sequence[ReadyStep]) -> list[Outcome]:
        """Run the segment of `batch` on all of it. When that fails, each step runs by itself: one is not the others' fault.

        So it is with the segments of a bundle, when that fails on a single step.
        """
        started, started_ns = time.perf_counter(), time.time_ns()
        segment = batch[0].segment
        rows = batch[0].rows if len(batch) == 1 else sum(step.rows for step in batch)
        try:
            limit = rows if batch[0].plan_step.coupled else self.limit(batch[0].group)
            results = self._run_in_pieces(segment, _stack([step.inputs() for step in batch]), rows, limit)
            _check(segment, results, rows, len(batch[0].plan_step.outputs[0]))
            if is_on_device(results[0]):
                results = _brought_home(batch, results)
        except BaseException as error:  # whatever happens in a segment, its worker lives on
            if len(batch) > 1:
                return [outcome for step in batch for outcome in self.run([step])]
            if isinstance(batch[0].plan_step, BundleStep):
                return [self._run_apart(batch[0], batch[0].plan_step.parts)]
            return [(batch[0], _known(error, segment, rows), SegmentRun(segment, rows, time.perf_counter() - started))]
        seconds = time.perf_counter() - started
        waits = [started - step.ready_s for step in batch]
        run = SegmentRun(segment, rows, seconds, rows, waits[0], started_ns)
        self._tell(batch, run, waits)
        if len(batch) == 1:
            return [(batch[0], results, run)]
        ends = itertools.accumulate(step.rows for step in batch)
        return [
            (
                step,
                [result[end - step.rows : end] for result in results],
                SegmentRun(segment, step.rows, seconds, rows, wait, started_ns),
            )
            for step, end, wait in zip(batch, ends, waits, strict=True)
        ]

    def _run_apart(self, step: ReadyStep, parts: Sequence[Part]) -> Outcome:
        """Run the segments that a bundle's `step` asks for one by one; what fails is said in the places of its outputs.

        Where one is closed, and may not be opened here, the whole request is run anew: nothing is counted of what ran before it.
        """
        started, started_ns = time.perf_counter(), time.time_ns()
        results: list[Array | EspalierError] = [_NOTHING] * len(step.plan_step.outputs[0])
        inputs, waited, runs = step.inputs(), started - step.ready_s, []
        for part in parts:
            begun = time.perf_counter()
            try:
                found = self._run_in_pieces(part.segment, inputs, step.rows, self.limit(part.segment))
                _check(part.segment, found, step.rows, part.stop - part.start)
                runs.append(SegmentRun(part.segment, step.rows, time.perf_counter() - begun, step.rows, waited, started_ns))
                results[part.start : part.stop] = found
            except SegmentClosed as error:
                return step, error, SegmentRun(step.segment, step.rows, time.perf_counter() - started)
            except BaseException as error:  # as in `run`
                results[part.start : part.stop] = [_known(error, part.segment, step.rows)] * (part.stop - part.start)
        for run in runs:
            self.count(run, [waited])
        seconds = time.perf_counter() - started
        return step, results, SegmentRun(step.segment, step.rows, seconds, step.rows, waited, started_ns)

    def _tell(self, batch: Sequence[ReadyStep], run: SegmentRun, waits: Sequence[float]) -> None:
        """Say what ran; of a bundle, each segment that somebody asked for."""
        first = batch[0].plan_step
        if not isinstance(first, BundleStep):
            # As on Triton, each stream of a step is a request to the segment.
            self.count(run, [wait for step, wait in zip(batch, waits, strict=True) for _ in step.streams])
            return
        if all(step.plan_step is first for step in batch):
            self._count_together(first.shares, run, waits)
            return
        asked: dict[Part, tuple[int, list[float]]] = {}
        for step, wait in zip(batch, waits, strict=True):
            assert isinstance(step.plan_step, BundleStep)  # as all of its group
            for part in step.plan_step.parts:
                rows, others = asked.get(part, (0, []))
                asked[part] = rows + step.rows, [*others, wait]
        runs = shared_out(run, [(part, rows) for part, (rows, _) in asked.items()])
        for one, (_, its_waits) in zip(runs, asked.values(), strict=True):
            self.count(one, its_waits)

    def _count_each(self, shares: tuple[tuple[str, float], ...], run: SegmentRun, waits: Sequence[float]) -> None:
        for segment, share in shares:
            self.count(run._replace(segment=segment, seconds=run.seconds * share), waits)

    def run_rows(self, segment: str, inputs: Sequence[Array], rows: int, outputs: int) -> Sequence[Array]:
        """Return the `outputs` results of one run of `segment`, uncounted. Raises what it raises, and EngineError for other results."""
        results = self._run_segment(segment, inputs)
        _check(segment, results, rows, outputs)
        return results

    def _run_in_pieces(self, segment: str, inputs: Sequence[Array], rows: int, limit: int) -> Sequence[Array]:
        if rows <= limit:
            return self._run_segment(segment, inputs)
        pieces = [self._run_segment(segment, [i[start : start + limit] for i in inputs]) for start in range(0, rows, limit)]
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]


def advance(step: ReadyStep, outcome: Sequence[Array | EspalierError] | EspalierError, run: SegmentRun) -> Iterable[ReadyStep]:
    """Tell the execution of `step` how it went; return what can follow now."""
    return step.execution.fail(step, outcome) if isinstance(outcome, EspalierError) else step.execution.finish(step, outcome, run)


def _known(error: BaseException, segment: str, rows: int) -> EspalierError:
    """Return `error`, or a sentence for clients that it is the cause of."""
    known = error if isinstance(error, EspalierError) else EngineError(f"Segment {segment!r} failed on {rows} rows.")
    known.__cause__ = known.__cause__ or (None if known is error else error)
    return known


def _check(segment: str, results: Sequence[Array], rows: int, outputs: int) -> None:
    """Raise EngineError unless there are `outputs` results of `rows` rows: a worker must not stumble over them later."""
    if len(results) != outputs or any(len(result) != rows for result in results):
        shapes = ", ".join(str(list(np.shape(result))) for result in results)
        raise EngineError(
            f"Segment {segment!r} gave results of shape {shapes} for {rows} rows; {outputs} of so many rows were due."
        )


def _brought_home(batch: Sequence[ReadyStep], results: Sequence[Array]) -> Sequence[Array]:
    """Return `results`, on the host where they leave the engine: copying them may fail, and its time is this run's."""

    def leaves(place: int) -> bool:
        return any(
            step.plan_step.outputs[stream][place] in step.execution.plan.outputs.values()
            for step in batch
            for stream in step.streams
        )

    return [np.asarray(result) if leaves(place) else result for place, result in enumerate(results)]


def _stack(inputs: Sequence[Sequence[Array]]) -> Sequence[Array]:
    return inputs[0] if len(inputs) == 1 else [stack(arrays) for arrays in zip(*inputs, strict=True)]
