"""Takes a run of blocks out of a task model, as an ONNX model of its own."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir import convenience
from onnx_ir.passes import common

from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, segment_tensor
from exporter.graph.chain import Tap

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
            value.shape = ir.Shape(["batch", *tap.shape])
    common.RemoveUnusedOpsetsPass()(segment)
    common.ClearMetadataAndDocStringPass()(segment)
    _rename_inner_values(graph)
    return segment


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
