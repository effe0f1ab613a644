"""One request on its way through its plan: which steps may run, which tensors are held, what went wrong. No threads, no clocks."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence

from contract.dtypes import Array
from contract.errors import EspalierError
from contract.plan import ExecutionPlan, PlanStep
from serving.engines.base import Answer, Call, SegmentRun
from serving.engines.device_tensors import stack


class Work:
    """A step of a flow, ready to run. streams: those of the step whose inputs are there; rows: theirs together.

    room: the rows that it takes up in a run: all, where nothing may be beside it. ready_s: since when it waits, by whoever lets it wait.
    """

    __slots__ = ("flow", "index", "ready_s", "room", "rows", "step", "streams")

    def __init__(self, flow: Flow, index: int, streams: tuple[int, ...]) -> None:
        self.flow = flow
        self.index = index
        self.streams = streams
        self.step: PlanStep = flow.plan.steps[index]
        self.rows = len(streams) * flow.rows
        self.room = sys.maxsize if self.step.coupled else self.rows
        self.ready_s = 0.0

    def inputs(self) -> list[Array]:
        """Return the segment's inputs, its streams stacked on the batch axis."""
        return self.flow.stacked(self.step, self.streams)


class Flow:
    """A plan on some rows (arrays of shape (n, ...) by name, one n >= 1). number: by arrival, from the scheduler.

    A run that fails takes with it what depends on it and nothing else: a step that other streams go through runs for those. The outputs
    that it would have led to have errors. A tensor is dropped after its last use, so that memory holds the taps in use and no more.
    """

    def __init__(self, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call, number: int) -> None:
        self.plan = plan
        self.call = call
        self.number = number
        self.rows = len(next(iter(inputs.values())))
        self._tensors = {name: inputs[name] for name in plan.inputs}
        self._uses = dict(plan.uses)
        self._missing = [len(names.difference(plan.inputs)) for names in plan.needs]
        self._left = len(plan.steps)
        self._runs: list[SegmentRun] = []
        self._errors: dict[str, EspalierError] = {}  # by tensor

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return not self._left

    def start(self) -> list[Work]:
        """Return the steps that may run at once."""
        return [
            Work(self, index, tuple(range(len(step.inputs))))
            for index, (step, missing) in enumerate(zip(self.plan.steps, self._missing, strict=True))
            if not missing
        ]

    def stacked(self, step: PlanStep, streams: Sequence[int]) -> list[Array]:
        """Return the inputs of these streams of `step`, one stream after the other on the batch axis."""
        arrays = [[self._tensors[name] for name in step.inputs[stream]] for stream in streams]
        return arrays[0] if len(arrays) == 1 else [stack(parts) for parts in zip(*arrays, strict=True)]

    def finish(self, work: Work, results: Sequence[Array], run: SegmentRun) -> list[Work]:
        """Take the results of `work`, arrays of `work.rows` rows; return what may run now."""
        self._runs.append(run)
        for place, result in enumerate(results):
            for position, stream in enumerate(work.streams):
                part = result[position * self.rows : (position + 1) * self.rows] if len(work.streams) > 1 else result
                self._tensors[work.step.outputs[stream][place]] = part
        return self._close(work)

    def fail(self, work: Work, error: EspalierError) -> list[Work]:
        """Give up `work` and what depends on it; return what may run all the same."""
        for stream in work.streams:
            self._errors.update(dict.fromkeys(work.step.outputs[stream], error))
        return self._close(work)

    def answer(self, queue_seconds: float = 0.0) -> Answer:
        """Return what was reached, when the flow is done."""
        reached = {output: self._tensors[name] for output, name in self.plan.outputs.items() if name not in self._errors}
        errors = {output: self._errors[name] for output, name in self.plan.outputs.items() if name in self._errors}
        return Answer(reached, tuple(self._runs), errors, queue_seconds)

    def _close(self, work: Work) -> list[Work]:
        """Note that `work` is over; return what waited for nothing else."""
        ready: list[Work] = []
        closed = [work.index]
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
                    ready += [Work(self, after, streams)] if streams else []
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
