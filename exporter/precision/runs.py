"""Runs segments on many rows, each opened once, and what tasks have in common once."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from contract.dtypes import Array
from contract.repository import Task
from contract.repository.model import SEGMENT_INPUT, segment_tensor
from exporter.sources.runtime import open_session, run_session

_AT_ONCE = 16  # rows of a run
_Value = tuple[object, ...]  # how a tensor is computed


class Runs:
    """Sessions of segments, whose models `file_of` finds. optimised: as ONNX Runtime rewrites them, with its kernels for integers."""

    def __init__(self, file_of: Callable[[str], Path], *, optimised: bool = True) -> None:
        self._file_of, self._optimised = file_of, optimised
        self._sessions: dict[str, ort.InferenceSession] = {}

    def run(self, segment: str, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs of `segment` for `inputs`, of (n, ...) each. Raises CannotRun."""
        if segment not in self._sessions:
            self._sessions[segment] = open_session(self._file_of(segment), optimised=self._optimised)
        parts = []
        for start in range(0, len(inputs[0]), _AT_ONCE):
            rows = {
                segment_tensor(SEGMENT_INPUT, index): np.ascontiguousarray(value[start : start + _AT_ONCE])
                for index, value in enumerate(inputs)
            }
            parts.append(run_session(self._sessions[segment], rows, segment))
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def answers(self, tasks: Mapping[str, Task], rows: Array) -> dict[str, list[Array]]:
        """Return the outputs of each of `tasks`, which all take `rows` of (n, ...) as their only input, by the same names."""
        parts: dict[str, list[list[Array]]] = {key: [] for key in tasks}
        for start in range(0, len(rows), _AT_ONCE):
            known: dict[_Value, Array] = {}
            for key, task in tasks.items():
                parts[key].append(self._answer(task, rows[start : start + _AT_ONCE], known))
        return {key: [np.concatenate(outputs) for outputs in zip(*found, strict=True)] for key, found in parts.items()}

    def _answer(self, task: Task, rows: Array, known: dict[_Value, Array]) -> list[Array]:
        """known: what was computed of the same rows already, by how; the names of tensors do not tell, variants having the same outputs."""
        source: _Value = ("rows",)
        known[source] = rows
        made = {task.inputs[0].name: source}
        for step in task.steps:
            taken = tuple(made[name] for name in step.inputs)
            places: list[_Value] = [(step.segment, taken, index) for index in range(len(step.outputs))]
            if places[0] not in known:
                known.update(zip(places, self.run(step.segment, [known[one] for one in taken]), strict=True))
            made.update(zip(step.outputs, places, strict=True))
        return [known[made[spec.name]] for spec in task.outputs]

    def keep_only(self, segments: Container[str]) -> None:
        """Let go of the sessions of others than `segments`."""
        self._sessions = {name: session for name, session in self._sessions.items() if name in segments}
