"""Quantises the segments of tasks one behind the other, each with what the quantised ones in front of it give."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from math import prod
from pathlib import Path

import onnx
from onnx import ModelProto, helper

from contract.dtypes import Array
from contract.repository import Repository, Segment, Step, Task
from contract.repository.model import SEGMENT_INPUT, segment_tensor
from exporter.precision.examples import MOST_TO_CALIBRATE, Rows
from exporter.precision.quantise import Feed, can_be_quantised, has_attention, quantised
from exporter.precision.runs import Runs

Progress = Callable[[str, int, int], None]
_STREAMS = 2  # of a segment that several tasks run on inputs of their own, to calibrate it with
_Tensor = tuple[Rows, str]


@dataclass(frozen=True)
class Int8:
    """A segment in int8: what the repository says of it, and where its model lies."""

    segment: Segment
    file: Path


@dataclass(frozen=True)
class _Use:
    """A segment on tensors of these rows."""

    rows: Rows
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def taken(self) -> list[_Tensor]:
        return [(self.rows, name) for name in self.inputs]


class SegmentQuantiser:
    """Quantises segments of `fp32`, whose tasks it is given with their rows, and writes the models into `folder`.

    there: segments that are in int8 already, by their names in fp32; they stay. made: those and the new ones, afterwards. What cannot be
    quantised, or has no products, is in neither, and stays as it is.
    """

    def __init__(self, fp32: Repository, folder: Path, there: Mapping[str, Int8], progress: Progress) -> None:
        self._fp32, self._folder, self._progress = fp32, folder, progress
        self.made: dict[str, Int8] = dict(there)
        self._runs = Runs(self._file)
        self._values: dict[_Tensor, Array] = {}

    def quantise(self, tasks: Sequence[tuple[Task, Rows]]) -> None:
        """Quantise all segments of `tasks` that are not yet. Raises NoQuantiser, CannotRun."""
        pending: dict[str, dict[_Use, None]] = {}
        for task, rows in tasks:
            self._values[rows, task.inputs[0].name] = rows.calibrate
            for step in task.steps:
                pending.setdefault(step.segment, {})[_use(step, rows)] = None
        attention = has_attention([self._graph(name) for name in pending])
        seen: set[str] = set()
        total = len(pending)
        while pending:
            self._progress("Quantising segments", total - len(pending), total)
            name, ready = self._next(pending)
            if name not in seen and name not in self.made:
                self._quantise(name, ready, attention)
            seen.add(name)
            self._run(name, ready)
            pending[name] = {use: None for use in pending[name] if use not in ready}
            pending = {name: uses for name, uses in pending.items() if uses}
            self._keep_only(pending)
        self._progress("Quantising segments", total, total)

    def _next(self, pending: Mapping[str, Mapping[_Use, None]]) -> tuple[str, list[_Use]]:
        """Return a segment all of whose inputs are there, or else one that can begin, and its uses as far as they can."""
        ready = {name: [use for use in uses if all(one in self._values for one in use.taken)] for name, uses in pending.items()}
        complete = (name for name, uses in ready.items() if len(uses) == len(pending[name]))
        name = next(complete, None) or next(name for name, uses in ready.items() if uses)
        return name, ready[name]

    def _quantise(self, name: str, uses: Sequence[_Use], attention: bool) -> None:
        model = onnx.load(self._fp32.model_file(name))
        if not can_be_quantised(model):
            return
        made = quantised(model, [*islice(self._feeds(uses), MOST_TO_CALIBRATE)], attention=attention)
        content = made.SerializeToString(deterministic=True)
        segment = _described(self._fp32.segments[name], content, made)
        file = self._folder / f"{segment.name}.onnx"
        file.write_bytes(content)
        self.made[name] = Int8(segment, file)

    def _feeds(self, uses: Sequence[_Use]) -> Iterator[Feed]:
        """Yield rows of `uses`, those of different data in turn."""
        streams: dict[Rows, list[_Use]] = {}
        for use in uses:
            streams.setdefault(use.rows, []).append(use)
        chosen = chain.from_iterable(of_rows[:_STREAMS] for of_rows in streams.values())
        for rows in zip_longest(*(self._rows_of(use) for use in chosen)):
            yield from (row for row in rows if row is not None)

    def _rows_of(self, use: _Use) -> Iterator[Feed]:
        values = [self._values[one] for one in use.taken]
        for row in range(len(values[0])):
            yield {segment_tensor(SEGMENT_INPUT, index): value[row : row + 1] for index, value in enumerate(values)}

    def _run(self, name: str, uses: Sequence[_Use]) -> None:
        for use in uses:
            found = self._runs.run(name, [self._values[one] for one in use.taken])
            self._values.update(zip(((use.rows, output) for output in use.outputs), found, strict=True))

    def _keep_only(self, pending: Mapping[str, Mapping[_Use, None]]) -> None:
        """Let go of what no segment takes any more."""
        taken = {one for uses in pending.values() for use in uses for one in use.taken}
        self._values = {one: value for one, value in self._values.items() if one in taken}
        self._runs.keep_only(pending)

    def _file(self, name: str) -> Path:
        return self.made[name].file if name in self.made else self._fp32.model_file(name)

    def _graph(self, name: str) -> ModelProto:
        return onnx.load(self._fp32.model_file(name), load_external_data=False)


def _use(step: Step, rows: Rows) -> _Use:
    return _Use(rows, step.inputs, step.outputs)


def _described(segment: Segment, content: bytes, model: ModelProto) -> Segment:
    role, digest = segment.name.rpartition("-")[0], hashlib.sha256(content).hexdigest()
    return replace(
        segment,
        name=f"{role}-{digest[:8]}",
        precision="int8",
        stands_for=segment.name,
        weight_bytes=_weight_bytes(model),
        weight_files={},
        version="1",
    )


def _weight_bytes(model: ModelProto) -> int:
    """Return the size of the model's weights."""
    return sum(
        prod(weight.dims) * helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize for weight in model.graph.initializer
    )


def is_as_named(name: str, file: Path) -> bool:
    """Whether the model in int8 at `file` is the one that was called `name`."""
    return name.rpartition("-")[2] == hashlib.sha256(file.read_bytes()).hexdigest()[:8]
