"""One graph with the heads of several tasks: what a user could build by hand, and serve as one model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, version_converter

from contract.dtypes import onnx_dtype
from contract.plan import ExecutionPlan, make_plan
from contract.repository import Repository, TensorSpec
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, segment_tensor
from exporter.sources.onnx_file import load_onnx


def write_merged(repository: Repository, tasks: Sequence[str], path: Path, *, as_segment: bool = False) -> Path:
    """Write one ONNX model to `path`, weights beside it, that computes `tasks`: each shared tensor once, each weight stored once.

    It takes and gives what the tasks do, under the same names; as_segment: under those of a segment's tensors, in the same order.
    """
    plan = make_plan(repository, tasks)
    whole = _merge(repository, tasks, plan)
    if as_segment:
        _name_as_segment(whole.graph)
    onnx.save(whole, path, save_as_external_data=True, location=f"{path.name}.data")
    return path


def _merge(repository: Repository, tasks: Sequence[str], plan: ExecutionPlan) -> ModelProto:
    merged = GraphProto(name="merged")
    taken = {spec.name: spec for task in tasks for spec in repository.tasks[task].inputs}
    merged.input.extend(_info(name, taken[name]) for name in plan.inputs)
    models = _read_segments(repository, dict.fromkeys(step.segment for step in plan.steps))
    for segment, model in models.items():
        _add_weights(merged, model.graph, segment)
    for place, step in enumerate(plan.steps):
        for number, (inputs, outputs) in enumerate(zip(step.inputs, step.outputs, strict=True)):
            graph = models[step.segment].graph
            names = {tensor.name: f"{step.segment}/{tensor.name}" for tensor in graph.initializer}
            names |= {segment_tensor(SEGMENT_INPUT, index): f"tensor/{name}" for index, name in enumerate(inputs)}
            names |= {segment_tensor(SEGMENT_OUTPUT, index): f"tensor/{name}" for index, name in enumerate(outputs)}
            names |= {segment_tensor(SEGMENT_INPUT, index): name for index, name in enumerate(inputs) if name in plan.inputs}
            _add_nodes(merged, graph, f"{step.segment}/{place}/{number}", names)
    for task in tasks:
        for spec in repository.tasks[task].outputs:
            source = plan.outputs[spec.name]
            merged.node.append(helper.make_node("Identity", [source if source in taken else f"tensor/{source}"], [spec.name]))
            merged.output.append(_info(spec.name, spec))
    opsets = {opset.domain: opset for model in models.values() for opset in model.opset_import}
    ir_version = max(model.ir_version for model in models.values())
    functions = {(one.domain, one.name): one for model in models.values() for one in model.functions}
    return helper.make_model(
        merged, opset_imports=list(opsets.values()), ir_version=ir_version, functions=list(functions.values())
    )


def _name_as_segment(graph: GraphProto) -> None:
    """Call what `graph` takes and gives as a segment does, by nodes that only hand on, which every runtime removes."""
    for kind, values in ((SEGMENT_INPUT, graph.input), (SEGMENT_OUTPUT, graph.output)):
        for index, value in enumerate(values):
            name, value.name = value.name, segment_tensor(kind, index)
            ends = [value.name, name] if kind == SEGMENT_INPUT else [name, value.name]
            node = helper.make_node("Identity", ends[:1], ends[1:])
            graph.node.insert(0 if kind == SEGMENT_INPUT else len(graph.node), node)


def _read_segments(repository: Repository, names: Iterable[str]) -> dict[str, ModelProto]:
    """Return the models of these segments, all in one opset: the newest of theirs."""
    models = {name: ir.to_proto(load_onnx(repository.model_file(name), linked=True)) for name in names}
    newest = max(_opset(model) for model in models.values())
    return {
        name: model if _opset(model) == newest else version_converter.convert_version(model, newest)
        for name, model in models.items()
    }


def _opset(model: ModelProto) -> int:
    return next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 0)


def _add_weights(merged: GraphProto, graph: GraphProto, prefix: str) -> None:
    for tensor in graph.initializer:
        added = merged.initializer.add()
        added.CopyFrom(tensor)
        added.name = f"{prefix}/{tensor.name}"


def _add_nodes(merged: GraphProto, graph: GraphProto, prefix: str, names: Mapping[str, str]) -> None:
    """Add the nodes of `graph`; `names` are given, other values get the prefix, and "" (left out) stays."""
    for node in graph.node:
        added = merged.node.add()
        added.CopyFrom(node)
        _rename(added, prefix, names)


def _rename(node: NodeProto, prefix: str, names: Mapping[str, str]) -> None:
    node.name = node.name and f"{prefix}/{node.name}"
    for values in (node.input, node.output):
        values[:] = [name and names.get(name, f"{prefix}/{name}") for name in values]
    for body in (
        graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs) if graph.node or graph.output
    ):
        del body.value_info[:]
        for value in (*body.input, *body.output, *body.initializer):  # a body may use names from outside, and hides none of them
            value.name = names.get(value.name, f"{prefix}/{value.name}")
        for inner in body.node:
            _rename(inner, prefix, names)


def _info(name: str, spec: TensorSpec) -> onnx.ValueInfoProto:
    sizes = ["batch", *(size if size >= 0 else None for size in spec.shape)]
    return helper.make_tensor_value_info(name, TensorProto.DataType.Value(onnx_dtype(spec.dtype)), sizes)
