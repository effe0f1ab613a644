"""Takes a run of blocks out of a task model, as an ONNX model of its own, and puts the whole network together again from such models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir import convenience
from onnx_ir.passes import common

from contract.dtypes import onnx_dtype
from contract.repository import Task, TensorSpec
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, segment_tensor
from exporter.errors import UnsupportedModel
from exporter.graph.chain import Tap
from exporter.graph.digests import operator_version
from exporter.graph.free.sizes import set_free_sizes

_MAX_IR_VERSION = 10  # what Triton 24.10 accepts


def extract_segment(model: ir.Model, name: str, inputs: Sequence[Tap], outputs: Sequence[Tap]) -> ir.Model:
    """Return what the canonical `model` computes between taps, with fixed names for inputs and outputs.

    Nothing in the result depends on names or on paths of the producer's machine; the order of the nodes is the producer's.
    """
    graph = convenience.extract(model.graph, [tap.name for tap in inputs], [tap.name for tap in outputs])
    graph.name = name
    segment = ir.Model(graph, ir_version=min(model.ir_version, _MAX_IR_VERSION), producer_name="espalier")
    segment.opset_imports.update(model.opset_imports)
    for kind, values, taps in ((SEGMENT_INPUT, graph.inputs, inputs), (SEGMENT_OUTPUT, graph.outputs, outputs)):
        for index, (value, tap) in enumerate(zip(values, taps, strict=True)):
            value.name = segment_tensor(kind, index)
            value.shape = ir.Shape(["batch", *_sizes(tap)])
    segment.functions.update(_functions_of(graph, model))
    common.RemoveUnusedOpsetsPass()(segment)
    common.ClearMetadataAndDocStringPass()(segment)
    _rename_inner_values(graph)
    return segment


def _functions_of(graph: ir.Graph, model: ir.Model) -> dict[ir.OperatorIdentifier, ir.Function]:
    """Return copies of those functions of `model` (its control flow) that `graph` calls."""
    called = dict.fromkeys(node.op_identifier() for node in graph if node.op_identifier() in model.functions)
    return {key: model.functions[key].clone() for key in called}


def _sizes(tap: Tap | TensorSpec) -> list[int | str]:
    """Return the sizes of a row, free ones by their names."""
    return [name or size for size, name in zip(tap.shape, tap.axes or ("",) * len(tap.shape), strict=True)]


def _rename_inner_values(graph: ir.Graph) -> None:
    """Number everything in order of first use: equal nodes in equal order give the same file, however they were named."""
    weights = list(
        dict.fromkeys(value for node in graph for value in node.inputs if value is not None and value.is_initializer())
    )
    graph.initializers.clear()
    for index, value in enumerate(weights):
        value.name = f"weight_{index}"
        graph.register_initializer(value)
    for index, node in enumerate(graph):
        node.name = f"{node.op_type.lower()}_{index}"
        for position, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = f"value_{index}" if position == 0 else f"value_{index}_{position}"


def rejoin(task: Task, segments: Mapping[str, ir.Model]) -> ir.Model:
    """Return the whole network of `task`. segments: their canonical graphs, which stay as they are.

    It has the blocks and addresses of the network that was exported: both are hashed from what is computed. Raises UnsupportedModel
    where segments come from files of different opsets, and no opset says what both say.
    """
    tensors = {spec.name: _input(spec) for spec in task.inputs}
    whole = ir.Graph(list(tensors.values()), [], nodes=[], name=task.name)
    opsets = common_opsets(task.name, [segments[step.segment] for step in task.steps])
    for number, step in enumerate(task.steps):
        model = segments[step.segment]
        outputs = _append(whole, f"{number}.", model.graph.clone(), [tensors[name] for name in step.inputs])
        tensors.update(zip(step.outputs, outputs, strict=True))
    for spec in task.outputs:
        tensors[spec.name].name = spec.name
        whole.outputs.append(tensors[spec.name])
    whole.opset_imports.update(opsets)
    parts = [segments[step.segment] for step in task.steps]
    model = ir.Model(whole, ir_version=max(part.ir_version for part in parts))
    for part in parts:
        model.functions.update(_functions_of(whole, part))
    for function in model.functions.values():
        function.opset_imports.update({domain: opsets[domain] for domain in function.opset_imports if domain in opsets})
    set_free_sizes(model, task.sizes)
    return model


def common_opsets(name: str, models: Sequence[ir.Model]) -> dict[str, int]:
    """Return the latest opsets of `models`, in which all of them say what they say. Raises UnsupportedModel where one does not."""
    opsets: dict[str, int] = {}
    for model in models:
        opsets |= {domain: max(version, opsets.get(domain, 0)) for domain, version in model.opset_imports.items()}
    for model in models:
        for node in (*model.graph, *(node for function in model.functions.values() for node in function.all_nodes())):
            if operator_version(node, model.opset_imports) != operator_version(node, opsets):
                was, now = (imports[node.domain] for imports in (model.opset_imports, opsets))
                raise UnsupportedModel(
                    name,
                    f"has segments of the opsets {was} and {now}, in which {node.op_type} means different things, so that they cannot be "
                    f"one network; export the task anew.",
                )
    return opsets


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
    return ir.Value(name=spec.name, shape=ir.Shape(["batch", *_sizes(spec)]), type=dtype)
