"""Runs the recorded samples of tasks through their segments, in order, beside ONNX Runtime, and so finds how each is best run.

A segment whose answer in bf16 differs too much stays in fp32; where it would have to differ because of what comes before it, all that
comes before it stays in fp32, too; and what differs in fp32 is left to ONNX Runtime.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from contract.dtypes import Array
from contract.repository.model import Repository, Step, Task, TensorSpec
from contract.repository.record import SAMPLE
from contract.repository.reference import at_reference
from contract.repository.sample import sample_inputs
from contract.repository.unite import unite
from serving.engines.openvino.agreement import BF16_ALLOWED, difference, first_class_differs, is_classes
from serving.errors import LessPrecise


class Way(StrEnum):
    """How a segment is run: on OpenVINO in bf16 or fp32, or on ONNX Runtime."""

    bf16 = "bf16"
    fp32 = "fp32"
    elsewhere = "elsewhere"


Run = Callable[[str, Way, Sequence[Array]], Sequence[Array]]
"""Runs a segment, by its name, in a way, on its inputs."""


@dataclass
class Ways:
    """How segments are run, by name. said: what is to be told of those that are not run as was asked for, a sentence each."""

    of: dict[str, Way]
    said: dict[str, str] = field(default_factory=dict)


class _Again(Exception):
    """What comes before a segment is to be run otherwise."""


@dataclass(frozen=True)
class _Sampled:
    """Tasks that take equal inputs, each with a record; outputs: what is an answer, by the tensor's name."""

    tasks: tuple[Task, ...]
    steps: tuple[Step, ...]
    outputs: Mapping[str, tuple[Task, TensorSpec]]

    @property
    def tolerance(self) -> float:
        """By how much fp32 may differ from fp32, of the spread."""
        return max(task.parity.tolerance for task in self.tasks if task.parity is not None)


def with_records(repository: Repository) -> list[Task]:
    """Return the tasks, with their canaries, of which it is known what they answer to a sample."""
    tasks = [task for task in repository.tasks.values() if task.plain is None]
    tasks += [task.canary.task for task in tasks if task.canary is not None]
    return [task for task in tasks if task.parity is not None and task.parity.sample == SAMPLE]


def settle(tasks: Iterable[Task], ways: Ways, fixed: Iterable[str], run: Run, done: Callable[[str], None]) -> None:
    """Change `ways` until every segment of `tasks` agrees with ONNX Runtime as far as may be. done: called with what is needed no more.

    fixed: segments that are served already, as `ways` says. Raises LessPrecise where these would have to be run otherwise, and what `run`
    raises.
    """
    kept = frozenset(fixed)
    for sampled in _sampled(tasks):
        for _ in range(len(sampled.steps) + 1):
            try:
                _Walk(sampled, ways, kept, run, done).go()
                break
            except _Again:
                continue


def _sampled(tasks: Iterable[Task]) -> Iterator[_Sampled]:
    groups: dict[object, dict[str, Task]] = {}
    for task in tasks:
        key: tuple[object, ...] = tuple((spec.name, spec.dtype, spec.shape) for spec in at_reference(task.inputs, task.sizes))
        while task.name in groups.get(key, {}):  # a canary has its task's name
            key = (*key, None)
        groups.setdefault(key, {})[task.name] = task
    for group in groups.values():
        steps, tensors = unite(group.values())
        outputs = {tensors[task.name, spec.name]: (task, spec) for task in group.values() for spec in task.outputs}
        yield _Sampled(tuple(group.values()), tuple(steps), outputs)


class _Walk:
    """One walk along the steps. Tensors are kept, as ONNX Runtime gives them and as they come out, while a step needs them."""

    def __init__(self, sampled: _Sampled, ways: Ways, fixed: frozenset[str], run: Run, done: Callable[[str], None]) -> None:
        self._sampled, self._ways, self._fixed, self._run, self._done = sampled, ways, fixed, run, done
        first = sampled.tasks[0]
        self._right: dict[str, Array] = dict(sample_inputs(at_reference(first.inputs, first.sizes)))
        self._found = dict(self._right)
        self._before: dict[str, frozenset[str]] = {name: frozenset() for name in self._right}  # segments that a tensor comes from
        self._uses = Counter(name for step in sampled.steps for name in step.inputs)
        self._runs = Counter(step.segment for step in sampled.steps)

    def go(self) -> None:
        """Walk. Raises _Again, LessPrecise."""
        for step in self._sampled.steps:
            before = frozenset().union(*(self._before[name] | {step.segment} for name in step.inputs))
            right = self._run(step.segment, Way.elsewhere, [self._right[name] for name in step.inputs])
            found = self._agreed(step, right, before - {step.segment})
            for name, wanted, given in zip(step.outputs, right, found, strict=True):
                self._right[name], self._found[name], self._before[name] = wanted, given, before
            self._forget(step)

    def _forget(self, step: Step) -> None:
        self._uses.subtract(step.inputs)
        for name in {name for name in (*step.inputs, *step.outputs) if self._uses[name] <= 0}:
            self._right.pop(name, None)
            self._found.pop(name, None)
        self._runs.subtract([step.segment])
        if not self._runs[step.segment]:
            self._done(step.segment)

    def _agreed(self, step: Step, right: Sequence[Array], before: frozenset[str]) -> Sequence[Array]:
        """Return what the step gives in the first way that agrees. Raises _Again, LessPrecise."""
        while True:
            way = self._ways.of[step.segment]
            found = self._run(step.segment, way, [self._found[name] for name in step.inputs])
            rounded = Way.bf16 in (way, *(self._ways.of[name] for name in before))
            fault = self._fault(step, right, found, BF16_ALLOWED if rounded else self._sampled.tolerance)
            if not fault or not self._change(step.segment, before, fault):
                return found

    def _change(self, segment: str, before: frozenset[str], fault: str) -> bool:
        """Have `segment` run in the next way, or else what comes before it; return whether there was one, for itself.

        Raises _Again where what comes before it changes, LessPrecise where that is served already.
        """
        for way, better, words in ((Way.bf16, Way.fp32, "stays in fp32"), (Way.fp32, Way.elsewhere, "runs on ONNX Runtime")):
            if self._ways.of[segment] is way and segment not in self._fixed:
                self._set(segment, better, f"{words}: on OpenVINO in {way} its answer to the sample {fault}")
                return True
            if changed := {name for name in before | {segment} if self._ways.of[name] is way}:
                if kept := changed & self._fixed:
                    raise LessPrecise(segment, fault, kept)
                for name in changed:
                    self._set(name, better, f"{words}: on what it gives in {way}, that of {segment!r} {fault}")
                raise _Again
        return False  # all of it is ONNX Runtime's

    def _set(self, segment: str, way: Way, sentence: str) -> None:
        self._ways.of[segment] = way
        self._ways.said[segment] = f"Segment {segment!r} {sentence}."

    def _fault(self, step: Step, right: Sequence[Array], found: Sequence[Array], allowed: float) -> str:
        """Return what is wrong with what a step gives, words to follow "its answer to the sample", or "" where nothing is."""
        for name, wanted, given in zip(step.outputs, right, found, strict=True):
            answer = self._sampled.outputs.get(name)
            differs = difference(wanted, given, typical=answer is None)
            if not differs <= allowed:
                return f"differs by {differs:.2g} of its spread, where {allowed:.2g} is allowed"
            if answer is not None and is_classes(*answer) and first_class_differs(wanted, given):
                return f"has another first class for task {answer[0].name!r}"
        return ""
