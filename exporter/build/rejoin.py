"""Puts the whole network of a task together from its segments: the way back from what `exporter.graph.extract` did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir import convenience

from contract.dtypes import onnx_dtype
from contract.repository import Task, TensorSpec


def rejoin(task: Task, segments: Mapping[str, ir.Model]) -> ir.Model:
    """Return the whole network of `task`. segments: their canonical graphs, which stay as they are.

    It has the blocks and addresses of the network that was exported: both are hashed from what is computed.
    """
    tensors = {spec.name: _input(spec) for spec in task.inputs}
    whole = ir.Graph(list(tensors.values()), [], nodes=[], name=task.name)
    opsets: dict[str, int] = {}
    for number, step in enumerate(task.steps):
        model = segments[step.segment]
        opsets |= model.opset_imports
        outputs = _append(whole, f"{number}.", model.graph.clone(), [tensors[name] for name in step.inputs])
        tensors.update(zip(step.outputs, outputs, strict=True))
    for spec in task.outputs:
        tensors[spec.name].name = spec.name
        whole.outputs.append(tensors[spec.name])
    whole.opset_imports.update(opsets)
    return ir.Model(whole, ir_version=max(segments[step.segment].ir_version for step in task.steps))


def _append(whole: ir.Graph, prefix: str, part: ir.Graph, inputs: Sequence[ir.Value]) -> list[ir.Value]:
    """Move what `part` computes into `whole`, fed by `inputs`, under names of its own; return its outputs there."""
    outputs, weights, nodes = list(part.outputs), list(part.initializers.values()), list(part)
    part.outputs.clear()
    part.initializers.clear()
    convenience.replace_all_uses_with(part.inputs, inputs)
    part.remove(nodes)
    for node in nodes:
        node.name = f"{prefix}{node.name}"
        for value in node.outputs:
            value.name = f"{prefix}{value.name}"
    for value in weights:
        value.name = f"{prefix}{value.name}"
        whole.register_initializer(value)
    whole.extend(nodes)
    return outputs


def _input(spec: TensorSpec) -> ir.Value:
    dtype = ir.TensorType(ir.DataType[onnx_dtype(spec.dtype)])
    return ir.Value(name=spec.name, shape=ir.Shape(["batch", *spec.shape]), type=dtype)
