"""Single numbers: of one rank and of the dtype that they are used in."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph.passes.batch.sizes import Sizes
from exporter.graph.passes.forms.writing import constant, numbers

_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max")


def cast_like_constant(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Take a small constant out of a CastLike to the dtype that it has."""
    if node.op_type != "CastLike" or node.outputs[0].is_graph_output():
        return False
    given, like = node.inputs
    if given is None or like is None or given.dtype is None or given.dtype != like.dtype:
        return False
    node.outputs[0].replace_all_uses_with(given)
    return True


def plain_scalar(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Write one number for all elements of the other operand without axes."""
    changed = False
    for position, value in enumerate(node.inputs if node.op_type in _ELEMENTWISE and len(node.inputs) == 2 else ()):
        array, other = numbers(value), sizes.shape(node.inputs[1 - position])
        if array is not None and array.size == 1 and array.ndim and other is not None and len(other) >= array.ndim:
            node.replace_input_with(position, constant(array.reshape(()), f"{node.outputs[0].name}/scalar{position}", graph))
            changed = True
    return changed
