"""The composed segments must compute what the whole task model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import onnxruntime as ort

from contract.dtypes import Array
from contract.repository import Repository, TensorSpec
from contract.repository.model import SEGMENT_INPUT, segment_tensor
from contract.repository.rows import Run, allowed_error, relative_error
from contract.repository.sample import sample_inputs
from exporter.build.analysis import Progress
from exporter.build.reference_outputs import SAMPLE_ROWS, ReferenceOutputs
from exporter.build.runtime import open_session, run_session
from exporter.errors import ParityError

Look = Callable[[str, Run, Sequence[Array]], None]


class ParityChecker:
    """Compares whole task models with their composition in `repository`. Sessions of shared segments are opened once.

    look: is shown each segment that runs, as a function that runs it, and what it is given.
    """

    def __init__(self, repository: Repository, look: Look = lambda segment, run, inputs: None) -> None:
        self._repository, self._look = repository, look
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._samples: dict[tuple[TensorSpec, ...], Sequence[Array]] = {}

    def error(self, task: str, whole: ReferenceOutputs) -> float:
        """Return the largest difference between the composed segments of `task` and its whole network, in units of the spread."""
        found = self.compose(task, self._sample(self._repository.tasks[task].inputs))
        return max(relative_error(ours, theirs) for ours, theirs in zip(found, whole.outputs, strict=True))

    def compose(self, task: str, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs of `task` for `inputs`, each of shape (n, ...), computed segment by segment."""
        described = self._repository.tasks[task]
        tensors: dict[str, Array] = dict(zip((spec.name for spec in described.inputs), inputs, strict=True))
        for step in described.steps:
            given = [tensors[name] for name in step.inputs]
            self._look(step.segment, partial(self._run, step.segment), given)
            tensors.update(zip(step.outputs, self._run(step.segment, given), strict=True))
        return [tensors[output.name] for output in described.outputs]

    def keep_only(self, tasks: Iterable[str]) -> None:
        """Let go of the segments that none of `tasks` uses."""
        used = {step.segment for task in tasks for step in self._repository.tasks[task].steps}
        self._sessions = {name: session for name, session in self._sessions.items() if name in used}

    def _sample(self, specs: tuple[TensorSpec, ...]) -> Sequence[Array]:
        if specs not in self._samples:
            self._samples = {specs: [*sample_inputs(specs, SAMPLE_ROWS).values()]}  # most often all tasks take the same
        return self._samples[specs]

    def _run(self, segment: str, inputs: Sequence[Array]) -> Sequence[Array]:
        if segment not in self._sessions:
            self._sessions[segment] = open_session(self._repository.model_file(segment))
        named = {segment_tensor(SEGMENT_INPUT, index): values for index, values in enumerate(inputs)}
        return run_session(self._sessions[segment], named, segment)


def check_error(repository: Repository, task: str, error: float, limit: float) -> None:
    """Raise ParityError when `error` is over `limit`, which is meant for float32."""
    segments = [repository.segments[step.segment] for step in repository.tasks[task].steps]
    allowed = allowed_error((spec for segment in segments for spec in (*segment.inputs, *segment.outputs)), limit)
    if not error <= allowed:  # NaN is an error, too
        raise ParityError(task, error, allowed)


def check_parity(
    repository: Repository, references: Mapping[str, ReferenceOutputs], limit: float, progress: Progress, look: Look
) -> dict[str, float]:
    """Return the error of each of the tasks of `references` against its whole model. Raises ParityError when one is over `limit`.

    look: is shown the segments, as in ParityChecker; what it raises is raised.
    """
    checker = ParityChecker(repository, look)
    tasks = list(references)
    errors: dict[str, float] = {}
    for index, name in enumerate(tasks):
        progress("Checking composed against whole", index, len(tasks))
        errors[name] = checker.error(name, references[name])
        check_error(repository, name, errors[name], limit)
        checker.keep_only(tasks[index + 1 :])
    progress("Checking composed against whole", len(tasks), len(tasks))
    return errors
