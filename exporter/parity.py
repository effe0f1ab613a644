"""The composed segments must compute what the whole task model computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from exporter.errors import ParityError
from exporter.runtime import open_session, run_session
from exporter.wholes import SAMPLE_ROWS, WholeAnswer
from serving.repository import Repository, TensorSpec
from serving.repository.model import SEGMENT_INPUT, segment_tensor
from serving.repository.rows import allowed_error, relative_error
from serving.repository.sample import sample_inputs

Array = NDArray[np.generic]


class ParityChecker:
    """Compares whole task models with their composition in `repository`. Sessions of shared segments are opened once."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._samples: dict[tuple[TensorSpec, ...], Sequence[Array]] = {}

    def error(self, task: str, whole: WholeAnswer) -> float:
        """Return the largest difference between the composed segments of `task` and its whole network, in units of the spread."""
        found = self.compose(task, self._sample(self._repository.tasks[task].inputs))
        return max(relative_error(ours, theirs) for ours, theirs in zip(found, whole.outputs, strict=True))

    def compose(self, task: str, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs of `task` for `inputs`, each of shape (n, ...), computed segment by segment."""
        described = self._repository.tasks[task]
        tensors: dict[str, Array] = dict(zip((spec.name for spec in described.inputs), inputs, strict=True))
        for step in described.steps:
            given = {segment_tensor(SEGMENT_INPUT, index): tensors[name] for index, name in enumerate(step.inputs)}
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

    def _run(self, segment: str, inputs: Mapping[str, Array]) -> Sequence[Array]:
        if segment not in self._sessions:
            self._sessions[segment] = open_session(self._repository.model_file(segment))
        return run_session(self._sessions[segment], inputs, segment)


def check_error(repository: Repository, task: str, error: float, limit: float) -> None:
    """Raise ParityError when `error` is over `limit`, which is meant for float32."""
    segments = [repository.segments[step.segment] for step in repository.tasks[task].steps]
    allowed = allowed_error((spec for segment in segments for spec in (*segment.inputs, *segment.outputs)), limit)
    if not error <= allowed:  # NaN is an error, too
        raise ParityError(task, error, allowed)
