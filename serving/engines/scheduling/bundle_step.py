"""Segments that take the same tensors, run as one: when that pays, the step of it in a plan, and whose the run was. Pure functions.

A small head takes less time than to choose, begin and note a run of it. A bundle is a session that computes many of them; a request that
asks for enough of them runs it, and leaves what it did not ask for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from contract.plan import ExecutionPlan, PlanStep
from contract.repository.unite import Tensors
from serving.engines.base import SegmentRun

# Of one thread. What a step of a segment costs beyond its arithmetic: by the processor's time of a request for 1,000 heads.
_STEP_S = 60e-6
_BYTES_PER_S = 10e9
_MACS_PER_S = 20e9
_UNWANTED = ""  # no tensor is called so


@dataclass(frozen=True)
class Member:
    """A segment of a bundle. outputs: how many it has. macs: for a row. bytes: of its weights, which every run reads."""

    segment: str
    outputs: int
    macs: int
    bytes: int

    def seconds(self, rows: int) -> float:
        """Return about how long its arithmetic takes for so many rows."""
        return max(self.bytes / _BYTES_PER_S, self.macs * rows / _MACS_PER_S)


@dataclass(frozen=True)
class Bundle:
    """Segments that one session computes from the tensors `inputs`; its outputs are theirs, one after the other."""

    name: str
    inputs: Tensors
    members: tuple[Member, ...]

    def pays(self, asked: Collection[str], rows: int) -> bool:
        """Return whether a run of all is less work than one run for each segment that is `asked` for."""
        if len(asked) < 2:
            return False
        seconds = {member.segment: member.seconds(rows) for member in self.members}
        return _STEP_S + sum(seconds.values()) < sum(_STEP_S + seconds[segment] for segment in asked)


class Part(NamedTuple):
    """What a plan asks of a bundle: the outputs `start` to `stop` of its run are the segment's. macs: for a row."""

    segment: str
    start: int
    stop: int
    macs: int


@dataclass(frozen=True)
class BundleStep(PlanStep):
    """A run of a bundle, which `segment` names. parts: what the plan asks of it; all other outputs are called "", and dropped."""

    parts: tuple[Part, ...] = ()

    @cached_property
    def shares(self) -> tuple[tuple[str, float], ...]:
        """Return the segments that the plan asks for, each with its share of a run's seconds, by MACs."""
        work = [max(1, part.macs) for part in self.parts]
        return tuple((part.segment, macs / sum(work)) for part, macs in zip(self.parts, work, strict=True))


class _BundledPlan(ExecutionPlan):
    """A plan with steps of bundles."""

    @cached_property
    def is_simple(self) -> bool:
        """Return that it is not: one run is several segments'."""
        return False


def asked_of(plan: ExecutionPlan, bundles: Mapping[str, Bundle]) -> Mapping[str, Mapping[str, PlanStep]]:
    """Return the steps of `plan`, by segment, that each bundle could run. bundles: by segment."""
    asked: dict[str, dict[str, PlanStep]] = {}
    for step in plan.steps:
        bundle = bundles.get(step.segment)
        if bundle is not None and step.inputs == (bundle.inputs,) and not step.coupled and not step.free:
            asked.setdefault(bundle.name, {})[step.segment] = step
    return asked


def with_bundles(plan: ExecutionPlan, bundles: Iterable[Bundle]) -> ExecutionPlan:
    """Return `plan` with one step for each of `bundles`, in the place of the first of the steps that it runs."""
    of = {member.segment: bundle for bundle in bundles for member in bundle.members}
    asked = asked_of(plan, of)
    steps: dict[object, PlanStep] = {}  # ordered; a bundle once
    for step in plan.steps:
        bundle = of.get(step.segment)
        if bundle is None or step.segment not in asked.get(bundle.name, {}):
            steps[id(step)] = step
        elif bundle.name not in steps:
            steps[bundle.name] = _step(bundle, asked[bundle.name])
    return _BundledPlan(plan.inputs, tuple(steps.values()), plan.outputs, plan.volume)


def shared_out(run: SegmentRun, parts: Sequence[tuple[Part, int]]) -> list[SegmentRun]:
    """Return the `run` of a bundle as one of each segment that was asked for: its seconds are shared out by their MACs.

    parts: each with the rows that it was asked for.
    """
    work = [max(1, part.macs) * rows for part, rows in parts]
    second = run.seconds / sum(work)
    return [
        SegmentRun(part.segment, rows, second * share, run.batch_rows, run.queue_seconds, run.started_ns)
        for (part, rows), share in zip(parts, work, strict=True)
    ]


def _step(bundle: Bundle, asked: Mapping[str, PlanStep]) -> BundleStep:
    outputs: list[str] = []
    parts = []
    for member in bundle.members:
        start = len(outputs)
        step = asked.get(member.segment)
        outputs += [_UNWANTED] * member.outputs if step is None else step.outputs[0]
        if step is not None:
            parts.append(Part(member.segment, start, len(outputs), member.macs))
    return BundleStep(bundle.name, (bundle.inputs,), (tuple(outputs),), parts=tuple(parts))
