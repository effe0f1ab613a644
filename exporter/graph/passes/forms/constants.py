"""Constants of another shape: large ones are not folded with the small ones, as folding would copy weights."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph.passes.batch.sizes import Sizes
from exporter.graph.passes.forms.writing import constant

_RESHAPING = ("Unsqueeze", "Squeeze", "Reshape")


def reshaped_constant(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Put a constant that is reshaped in place as a constant of that shape; its memory is the same."""
    value, output = node.inputs[0] if node.inputs else None, node.outputs[0]
    if node.op_type not in _RESHAPING or value is None or not value.is_initializer() or output.is_graph_output():
        return False
    shape = sizes.shape(output)
    if value.const_value is None or shape is None or not all(size.is_constant for size in shape) or not output.uses():
        return False
    array = value.const_value.numpy().reshape([size.offset for size in shape])
    output.replace_all_uses_with(constant(array, f"{output.name}/reshaped", graph, value.const_value.dtype))
    return True
