"""The composed segments must compute what the whole task model computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from exporter.chain import Tap
from exporter.runtime import open_session
from serving.repository import Repository

Array = NDArray[np.generic]


def sample_rows(source: Tap, rows: int, seed: int = 0) -> Array:
    """Return random input of shape (rows, *source.shape): noise of different brightness and contrast, so that outputs differ."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((rows, *source.shape)) * generator.uniform(0.3, 1.0, (rows, *[1] * len(source.shape)))
    noise += generator.uniform(-1.0, 1.0, (rows, *[1] * len(source.shape)))
    if source.dtype == "UINT8":
        return np.clip(noise * 64 + 128, 0, 255).astype(np.uint8)
    return noise.astype(np.float32)


class ParityChecker:
    """Compares whole task models with their composition in `repository`. Sessions of shared segments are opened once."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._sessions: dict[str, ort.InferenceSession] = {}

    def error(self, task: str, whole: Path, whole_input: str, rows: Array) -> float:
        """Return the largest difference between the composed segments of `task` and the ONNX file `whole`, in units of the spread.

        whole_input: the name of the input of `whole`. rows: shape (n, ...), as `sample_rows` makes them.
        """
        expected = open_session(whole).run(None, {whole_input: rows})[0]
        return relative_error(self._compose(task, rows), expected)

    def _compose(self, task: str, rows: Array) -> Array:
        for step in self._repository.tasks[task].steps:
            if step.segment not in self._sessions:
                self._sessions[step.segment] = open_session(self._repository.model_file(step.segment))
            rows = self._sessions[step.segment].run(None, {self._repository.segments[step.segment].input.name: rows})[0]
        return rows


def relative_error(found: Array, expected: Array) -> float:
    """Return max|found - expected| over the spread of `expected`: its largest standard deviation over rows, of any output entry.

    An absolute limit would let a constant pass for the output of a network whose answers hardly differ.
    """
    difference = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())
    spread = float(np.std(expected.astype(np.float64), axis=0).max())
    if difference == 0:
        return 0.0
    return difference / spread if spread else float("inf")
