"""One request on its way through its plan: which steps may run, which tensors are held, what went wrong. No threads, no clocks.

Of a request with more rows than go at once, each chunk of rows is executed by itself, and the answers are joined.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from contract.dtypes import Array
from contract.errors import EspalierError
from contract.plan import ExecutionPlan, PlanStep
from serving.engines.base import Answer, Call, SegmentRun
from serving.engines.device_tensors import stack
from serving.engines.scheduling.bundle_step import BundleStep, shared_out
from serving.errors import TooManyRows

Shapes = tuple[tuple[int, ...], ...]  # of the inputs of a segment, without the rows
Group = str | tuple[str, Shapes]  # of steps that can run together: of a segment, where sizes are free on inputs of these shapes


class ReadyStep:
    """A step of an execution, ready to run. streams: those of the step whose inputs are there, and equal in shape; rows: theirs together.

    part: which one of its step, whose streams may differ in shape. group: of what it can run with. work: its rows, in volumes where sizes
    are free. room: the rows that it takes up in a run: all, where nothing may be beside it. ready_s: since when it waits, by whoever lets
    it wait.
    """

    __slots__ = ("execution", "group", "index", "part", "plan_step", "ready_s", "room", "rows", "segment", "streams", "work")

    def __init__(self, execution: PlanExecution, index: int, streams: tuple[int, ...], part: int = 0) -> None:
        self.execution = execution
        self.index = index
        self.streams = streams
        self.part = part
        self.plan_step: PlanStep = execution.plan.steps[index]
        self.segment = self.plan_step.segment
        self.group: Group = self.segment
        self.rows = self.work = len(streams) * execution.rows
        if self.plan_step.free:
            self.group = (self.segment, execution.shapes(self.plan_step, streams[0]))
            self.work = self.rows * execution.volume
        self.room = sys.maxsize if self.plan_step.coupled else self.rows
        self.ready_s = 0.0

    def inputs(self) -> list[Array]:
        """Return the segment's inputs, its streams stacked on the batch axis."""
        return self.execution.stacked(self.plan_step, self.streams)


class PlanExecution:
    """A plan on some rows (arrays of shape (n, ...) by name, one n >= 1). number: by arrival, from the scheduler.

    A run that fails takes with it what depends on it and nothing else: a step that other streams go through runs for those. The outputs
    that it would have led to have errors. A tensor is dropped after its last use, so that memory holds the taps in use and no more.
    """

    def __init__(self, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call, number: int) -> None:
        self.plan = plan
        self.call = call
        self.number = number
        self.rows = len(next(iter(inputs.values())))
        self.volume = 1 if plan.volume is None else plan.volume.of(inputs)  # of a row
        self.queued_rows = self.rows if plan.volume is None else plan.volume.in_reference_rows(inputs, self.rows)
        self._inputs = inputs
        self._left = len(plan.steps)

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return not self._left

    def given(self, name: str) -> Array:
        """Return an input."""
        return self._inputs[name]

    def start(self) -> list[ReadyStep]:
        """Begin: return the steps that may run at once."""
        self._tensors = {name: self._inputs[name] for name in self.plan.inputs}
        self._inputs = {}
        self._uses = dict(self.plan.uses)
        self._missing = [len(names.difference(self.plan.inputs)) for names in self.plan.needs]
        self._parts: dict[int, int] = {}  # that are to come, of steps that run in several
        self._runs: list[SegmentRun] = []
        self._errors: dict[str, EspalierError] = {}  # by tensor
        return [
            ready
            for index, (step, missing) in enumerate(zip(self.plan.steps, self._missing, strict=True))
            if not missing
            for ready in self._ready(index, tuple(range(len(step.inputs))))
        ]

    def shapes(self, step: PlanStep, stream: int) -> Shapes:
        """Return the shapes, without the rows, of what a stream of `step` takes."""
        return tuple(self._tensors[name].shape[1:] for name in step.inputs[stream])

    def stacked(self, step: PlanStep, streams: Sequence[int]) -> list[Array]:
        """Return the inputs of these streams of `step`, one stream after the other on the batch axis."""
        arrays = [[self._tensors[name] for name in step.inputs[stream]] for stream in streams]
        return arrays[0] if len(arrays) == 1 else [stack(parts) for parts in zip(*arrays, strict=True)]

    def finish(self, step: ReadyStep, results: Sequence[Array | EspalierError], run: SegmentRun) -> list[ReadyStep]:
        """Take the results of `step`, arrays of `step.rows` rows, or of a bundle why one failed; return what may run now."""
        self._runs += _runs(step, results, run)
        for position, stream in enumerate(step.streams):
            for name, result in zip(step.plan_step.outputs[stream], results, strict=True):
                if isinstance(result, EspalierError):
                    self._errors[name] = result
                elif self._uses.get(name):  # what a segment gives for other plans is not held
                    part = result[position * self.rows : (position + 1) * self.rows] if len(step.streams) > 1 else result
                    self._tensors[name] = part
        return self._close(step)

    def fail(self, step: ReadyStep, error: EspalierError) -> list[ReadyStep]:
        """Give up `step` and what depends on it; return what may run all the same."""
        for stream in step.streams:
            self._errors.update(dict.fromkeys(step.plan_step.outputs[stream], error))
        return self._close(step)

    def answer(self, queue_seconds: float = 0.0) -> Answer:
        """Return what was reached, when the execution is done."""
        reached = {output: self._tensors[name] for output, name in self.plan.outputs.items() if name not in self._errors}
        errors = {output: self._errors[name] for output, name in self.plan.outputs.items() if name in self._errors}
        return Answer(reached, tuple(self._runs), errors, queue_seconds)

    def _ready(self, index: int, streams: tuple[int, ...]) -> Iterable[ReadyStep]:
        """Return these streams of a step as one, or as one for each shape of what they take."""
        step = self.plan.steps[index]
        if not step.free or len(streams) == 1:
            return (ReadyStep(self, index, streams),)
        alike: dict[Shapes, list[int]] = {}
        for stream in streams:
            alike.setdefault(self.shapes(step, stream), []).append(stream)
        self._parts[index] = len(alike)
        return [ReadyStep(self, index, tuple(part), number) for number, part in enumerate(alike.values())]

    def _close(self, step: ReadyStep) -> list[ReadyStep]:
        """Note that `step` is over; return what waited for nothing else."""
        ready: list[ReadyStep] = []
        if step.index in self._parts:
            self._parts[step.index] -= 1
            if self._parts[step.index]:
                return ready
        closed = [step.index]
        while closed:
            index = closed.pop()
            self._left -= 1
            self._drop_unused(self.plan.steps[index])
            for name in itertools.chain.from_iterable(self.plan.steps[index].outputs):
                for after in self.plan.followers.get(name, ()):
                    self._missing[after] -= 1
                    if self._missing[after]:
                        continue
                    streams = self._sound_streams(self.plan.steps[after])
                    ready += self._ready(after, streams) if streams else ()
                    closed += [] if streams else [after]
        return ready

    def _sound_streams(self, step: PlanStep) -> tuple[int, ...]:
        """Return the streams of `step` whose inputs are there; those that can never be pass the error on."""
        sound = []
        for stream, names in enumerate(step.inputs):
            failed = [self._errors[name] for name in names if name in self._errors]
            if failed:
                self._errors.update(dict.fromkeys(step.outputs[stream], failed[0]))
            else:
                sound.append(stream)
        return tuple(sound)

    def _drop_unused(self, step: PlanStep) -> None:
        for name in itertools.chain.from_iterable(step.inputs):
            self._uses[name] -= 1
            if not self._uses[name]:
                self._tensors.pop(name, None)


def _runs(step: ReadyStep, results: Sequence[Array | EspalierError], run: SegmentRun) -> Sequence[SegmentRun]:
    """Return the run of `step`, of a bundle as one of each segment that was asked for and did not fail."""
    if not isinstance(step.plan_step, BundleStep):
        return (run,)
    bundled = step.plan_step
    parts = [part for part in bundled.parts if not isinstance(results[part.start], EspalierError)]
    if len(parts) == len(bundled.parts):
        rows, seconds, rest = step.rows, run.seconds, run[3:]
        return [SegmentRun(segment, rows, seconds * share, *rest) for segment, share in bundled.shares]
    return shared_out(run, [(part, step.rows) for part in parts]) if parts else ()


def rows_at_once(plan: ExecutionPlan, inputs: Mapping[str, Array], rows_per_run: int, limit: Callable[[Group], int]) -> int:
    """Return the most rows of a request that go through `plan` at once, 0: any number. rows_per_run: whatever their sizes are.

    Where sizes are free, as many as all segments that take the inputs are to be given. limit: the most rows of those, by groups.
    """
    if plan.volume is None or plan.coupled:
        return rows_per_run
    shapes = {name: inputs[name].shape[1:] for name in plan.inputs}
    limits = [
        limit((step.segment, tuple(shapes[name] for name in stream))) // len(step.inputs)
        for step, needs in zip(plan.steps, plan.needs, strict=True)
        if step.free and needs <= shapes.keys()
        for stream in step.inputs
    ]
    limits += [rows_per_run] if rows_per_run else []
    return max(1, min(limits)) if limits else 0


def split_rows(plan: ExecutionPlan, inputs: Mapping[str, Array], limit: int) -> Sequence[Mapping[str, Array]]:
    """Return `inputs` of `plan`, arrays of shape (n, ...), in chunks of at most `limit` rows; 0: any number.

    Raises TooManyRows when there would have to be several, and a segment has to see all rows together.
    """
    rows = len(next(iter(inputs.values())))
    if not limit or rows <= limit:
        return [inputs]
    if plan.coupled:
        raise TooManyRows(rows, limit, plan.coupled)
    return [{name: values[start : start + limit] for name, values in inputs.items()} for start in range(0, rows, limit)]


def join_chunks(plan: ExecutionPlan, answers: Sequence[Answer]) -> Answer:
    """Return the answers of all chunks as one; an output that failed in one of them has failed."""
    if len(answers) == 1:
        return answers[0]
    errors = {name: error for answer in reversed(answers) for name, error in answer.errors.items()}
    outputs = {name: np.concatenate([answer.outputs[name] for answer in answers]) for name in plan.outputs if name not in errors}
    runs = tuple(run for answer in answers for run in answer.runs)
    return Answer(outputs, runs, errors, max(answer.queue_seconds for answer in answers), len(answers))
