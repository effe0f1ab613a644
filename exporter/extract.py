"""Takes a run of blocks out of a task model, as an ONNX model of its own."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir import convenience
from onnx_ir.passes import common

from exporter.chain import Tap
from exporter.load import MAX_IR_VERSION
from serving.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT


def extract_segment(model: ir.Model, name: str, start: Tap, end: Tap) -> ir.Model:
    """Return what the canonical `model` computes between the taps `start` and `end`, with fixed names for input and output.

    Nothing in the result depends on names or on paths of the producer's machine; the order of the nodes is the producer's.
    """
    graph = convenience.extract(model.graph, [start.name], [end.name])
    graph.name = name
    segment = ir.Model(graph, ir_version=min(model.ir_version, MAX_IR_VERSION), producer_name="espalier")
    segment.opset_imports.update(model.opset_imports)
    _set_boundary(graph.inputs[0], SEGMENT_INPUT, start)
    _set_boundary(graph.outputs[0], SEGMENT_OUTPUT, end)
    common.RemoveUnusedOpsetsPass()(segment)
    common.ClearMetadataAndDocStringPass()(segment)
    _rename_inner_values(graph)
    return segment


def _set_boundary(value: ir.Value, name: str, tap: Tap) -> None:
    value.name = name
    value.shape = ir.Shape(["batch", *tap.shape])


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
