"""The composed segments must compute what the whole task model computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from exporter.errors import ParityError
from exporter.runtime import open_session, run_session
from serving.dtypes import NUMPY_DTYPES
from serving.repository import Repository, TensorSpec
from serving.repository.model import SEGMENT_INPUT, segment_tensor

Array = NDArray[np.generic]


def sample_rows(spec: TensorSpec, rows: int, seed: int = 0) -> Array:
    """Return random input of shape (rows, *spec.shape): noise of different brightness and contrast, so that outputs differ.

    Integers other than uint8 are 0 or 1, which every table that they may index has.
    """
    generator = np.random.default_rng(seed)
    dtype = NUMPY_DTYPES.get(spec.dtype, np.dtype(np.float32))
    if dtype.kind in "iub" and spec.dtype != "UINT8":
        return generator.integers(0, 2, (rows, *spec.shape)).astype(dtype)
    noise = generator.standard_normal((rows, *spec.shape)) * generator.uniform(0.3, 1.0, (rows, *[1] * len(spec.shape)))
    noise += generator.uniform(-1.0, 1.0, (rows, *[1] * len(spec.shape)))
    if spec.dtype == "UINT8":
        return np.clip(noise * 64 + 128, 0, 255).astype(np.uint8)
    return noise.astype(dtype)


class ParityChecker:
    """Compares whole task models with their composition in `repository`. Sessions of shared segments are opened once."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._sessions: dict[str, ort.InferenceSession] = {}

    def error(self, task: str, whole: Path, rows: int = 4) -> float:
        """Return the largest difference between the composed segments of `task` and the ONNX file `whole`, in units of the spread.

        The inputs and outputs of `whole` are those of the task in the same order.
        """
        inputs = [sample_rows(spec, rows, seed) for seed, spec in enumerate(self._repository.tasks[task].inputs)]
        session = open_session(whole)
        names = [value.name for value in session.get_inputs()]
        expected = run_session(session, dict(zip(names, inputs, strict=True)), f"the whole network of {task}")
        found = self.compose(task, inputs)
        return max(relative_error(ours, theirs) for ours, theirs in zip(found, expected, strict=True))

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

    def _run(self, segment: str, inputs: Mapping[str, Array]) -> Sequence[Array]:
        if segment not in self._sessions:
            self._sessions[segment] = open_session(self._repository.model_file(segment))
        return run_session(self._sessions[segment], inputs, segment)


def check_error(repository: Repository, task: str, error: float, limit: float) -> None:
    """Raise ParityError when `error` is over `limit`, which is meant for float32.

    Half precision rounds some thousand times as coarsely, and gets a limit that much wider.
    """
    segments = [repository.segments[step.segment] for step in repository.tasks[task].steps]
    half = any(spec.dtype in ("FP16", "BF16") for segment in segments for spec in (*segment.inputs, *segment.outputs))
    allowed = limit * 500 if half else limit
    if not error <= allowed:  # NaN is an error, too
        raise ParityError(task, error, allowed)


def relative_error(found: Array, expected: Array) -> float:
    """Return max|found - expected| over the spread of `expected`: its largest standard deviation over rows, of any output entry.

    An absolute limit would let a constant pass for the output of a network whose answers hardly differ.
    """
    difference = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())
    spread = float(np.std(expected.astype(np.float64), axis=0).max())
    if difference == 0:
        return 0.0
    return difference / spread if spread else float("inf")
