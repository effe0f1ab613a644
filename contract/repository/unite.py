"""Brings the steps of several tasks together, so that equal computations are one step. Pure functions."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from contract.dtypes import onnx_dtype
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, Step, Task, TensorSpec, segment_tensor

if TYPE_CHECKING:
    import onnx

Tensors = tuple[str, ...]


def unite(tasks: Iterable[Task]) -> tuple[list[Step], dict[tuple[str, str], str]]:
    """Return the tasks' steps without repetition, and under (task, its own name for a tensor) the tensor's name in them.

    The same segment on the same tensors is the same value, whatever the tasks call the result: one name is kept.
    """
    united: dict[tuple[str, Tensors], Step] = {}
    tensors: dict[tuple[str, str], str] = {}
    for task in tasks:
        tensors.update({(task.name, spec.name): spec.name for spec in task.inputs})
        for step in task.steps:
            inputs = tuple(tensors[task.name, name] for name in step.inputs)
            kept = united.setdefault((step.segment, inputs), Step(step.segment, inputs, step.outputs))
            tensors.update({(task.name, name): other for name, other in zip(step.outputs, kept.outputs, strict=True)})
    return list(united.values()), tensors


def united_inputs(tasks: Iterable[Task]) -> tuple[TensorSpec, ...] | None:
    """Return what a request for all of `tasks` brings, each input once; None where two of them call different tensors by one name."""
    found: dict[str, TensorSpec] = {}
    for task in tasks:
        for spec, layout in zip(task.inputs, task.input_layouts(), strict=True):
            known = found.setdefault(spec.name, spec)
            if known != spec:
                return None
            found[spec.name] = replace(known, layout=known.layout or layout)
    return tuple(found.values())


@dataclass(frozen=True)
class Copy:
    """The tensor `source` under one more name, that of the output `spec`; made by a model of its own that copies what it is given.

    inlets, outlets: how often the model takes and gives it; of what it takes it looks at the first.
    """

    source: str
    spec: TensorSpec
    inlets: int = 1
    outlets: int = 1

    @property
    def model(self) -> str:
        """Return the name of the model, one for all tensors of a kind; it is of the form that no task may have."""
        ways = f" {self.inlets} {self.outlets}" if self.inlets + self.outlets > 2 else ""
        kind = f"{self.spec.dtype} {self.spec.shape}{ways}"
        return f"copy-00-00-{hashlib.sha256(kind.encode()).hexdigest()[:8]}"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Return what the model takes."""
        return self._tensors(SEGMENT_INPUT, self.inlets)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Return what the model gives."""
        return self._tensors(SEGMENT_OUTPUT, self.outlets)

    def _tensors(self, kind: str, count: int) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(segment_tensor(kind, index), self.spec.dtype, self.spec.shape) for index in range(count))


def ensemble_of(tasks: Iterable[Task]) -> tuple[list[Step], list[Copy]]:
    """Return the steps of one ensemble of all `tasks`, each computation once, and the copies without which Triton could not do that.

    To Triton a tensor has one name, and a step whose outputs nobody asked for is left out even if other steps wait for them. So an
    output that other steps take too, or that is equal to another task's output, gets a name of its own inside and is copied from it.
    """
    tasks = list(tasks)
    steps, tensors = unite(tasks)
    outputs = {spec.name: (tensors[task.name, spec.name], spec) for task in tasks for spec in task.outputs}
    taken = Counter(source for source, _ in outputs.values()) + Counter(name for step in steps for name in step.inputs)
    copied = {name for name, (source, _) in outputs.items() if source != name or taken[source] > 1}
    inner = {name: f"inside:{name}" for name in copied}  # no task can be called that

    def renamed(names: Tensors) -> Tensors:
        return tuple(inner.get(name, name) for name in names)

    copies = [Copy(inner.get(source, source), spec) for name, (source, spec) in outputs.items() if name in copied]
    return [Step(step.segment, renamed(step.inputs), renamed(step.outputs)) for step in steps], copies


def copy_model(copy: Copy) -> onnx.ModelProto:
    """Return the ONNX model of `copy`: rows of its kind of tensor in, the same rows out."""
    from onnx import TensorProto, helper  # few repositories need it, and no server

    element = TensorProto.DataType.Value(onnx_dtype(copy.spec.dtype))
    shape = ["batch", *(f"size_{axis}" if size < 0 else size for axis, size in enumerate(copy.spec.shape))]
    given, copied = (
        [helper.make_tensor_value_info(spec.name, element, shape) for spec in specs] for specs in (copy.inputs, copy.outputs)
    )
    nodes = [helper.make_node("Identity", [given[0].name], [info.name]) for info in copied]
    graph = helper.make_graph(nodes, copy.model, given, copied)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
