"""One graph with the heads of several tasks: what a user could build by hand, and serve as one model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import GraphProto, ModelProto, helper

from contract.plan import make_plan
from contract.repository import Repository, TensorSpec
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, segment_tensor
from exporter.sources.onnx_file import load_onnx

_ELEMENTS = {"UINT8": onnx.TensorProto.UINT8, "FP32": onnx.TensorProto.FLOAT, "INT64": onnx.TensorProto.INT64}


def write_merged(repository: Repository, tasks: Sequence[str], path: Path) -> Path:
    """Write one ONNX model to `path`, weights beside it, that computes `tasks`: each shared tensor once, each weight stored once.

    It takes and gives what the tasks do, under the same names.
    """
    plan = make_plan(repository, tasks)
    merged = GraphProto(name="merged")
    first = repository.tasks[tasks[0]]
    merged.input.extend(_info(spec.name, spec) for spec in first.inputs)
    models: dict[str, ModelProto] = {}
    for place, step in enumerate(plan.steps):
        if step.segment not in models:
            models[step.segment] = ir.to_proto(load_onnx(repository.model_file(step.segment), linked=True))
            _add_weights(merged, models[step.segment].graph, step.segment)
        for number, (inputs, outputs) in enumerate(zip(step.inputs, step.outputs, strict=True)):
            graph = models[step.segment].graph
            names = {tensor.name: f"{step.segment}/{tensor.name}" for tensor in graph.initializer}
            names |= {segment_tensor(SEGMENT_INPUT, index): f"tensor/{name}" for index, name in enumerate(inputs)}
            names |= {segment_tensor(SEGMENT_OUTPUT, index): f"tensor/{name}" for index, name in enumerate(outputs)}
            names |= {segment_tensor(SEGMENT_INPUT, index): name for index, name in enumerate(inputs) if name in plan.inputs}
            _add_nodes(merged, graph, f"{step.segment}/{place}/{number}", names)
    for task in tasks:
        for spec in repository.tasks[task].outputs:
            merged.node.append(helper.make_node("Identity", [f"tensor/{plan.outputs[spec.name]}"], [spec.name]))
            merged.output.append(_info(spec.name, spec))
    opsets = {opset.domain: opset for model in models.values() for opset in model.opset_import}
    ir_version = max(model.ir_version for model in models.values())
    whole = helper.make_model(merged, opset_imports=list(opsets.values()), ir_version=ir_version)
    onnx.save(whole, path, save_as_external_data=True, location=f"{path.name}.data")
    return path


def _add_weights(merged: GraphProto, graph: GraphProto, prefix: str) -> None:
    for tensor in graph.initializer:
        added = merged.initializer.add()
        added.CopyFrom(tensor)
        added.name = f"{prefix}/{tensor.name}"


def _add_nodes(merged: GraphProto, graph: GraphProto, prefix: str, names: dict[str, str]) -> None:
    """Add the nodes of `graph`; `names` are given, other values get the prefix, and "" (left out) stays."""
    for node in graph.node:
        added = merged.node.add()
        added.CopyFrom(node)
        added.name = f"{prefix}/{node.name}" if node.name else ""
        for values in (added.input, added.output):
            values[:] = [name and names.get(name, f"{prefix}/{name}") for name in values]


def _info(name: str, spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        name, _ELEMENTS[spec.dtype], ["batch", *(size if size >= 0 else None for size in spec.shape)]
    )
