"""GELU, x/2 (1 + erf(x/sqrt 2)), as torch's exporters write it out: with the half in any place."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph.passes.batch.sizes import Sizes
from exporter.graph.passes.forms.writing import maker, numbers, put


def half_first(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Write the product of x, 1 + erf and 1/2 as (1/2 x) (1 + erf), whatever was multiplied first: halves are exact.

    ONNX Runtime knows that one, and fuses it.
    """
    for product, last in _pairs(node):
        inner = maker(product, "Mul")
        for first, second in _pairs(inner):
            half, bracket, x = _sorted(first, second, last)
            if half is None or bracket is None or x is None or (inner is not None and last is bracket):
                continue
            halved = put(inner, "Mul", [half, x], {}, graph) if inner is not None else node
            put(node, "Mul", [halved.outputs[0], bracket], {}, graph)
            return True
    return False


def _sorted(*factors: ir.Value | None) -> tuple[ir.Value | None, ir.Value | None, ir.Value | None]:
    """Return of three factors the half, the bracket and what is left, each None if there is no such."""
    half = next((value for value in factors if _is_half(value)), None)
    bracket = next((value for value in factors if value is not half and _is_bracket(value)), None)
    return half, bracket, next((value for value in factors if value is not half and value is not bracket), None)


def _pairs(node: ir.Node | None) -> list[tuple[ir.Value | None, ir.Value | None]]:
    """Return both operands of a product, in either order."""
    if node is None or node.op_type != "Mul":
        return []
    left, right = node.inputs
    return [(left, right), (right, left)]


def _is_half(value: ir.Value | None) -> bool:
    array = numbers(value)
    return array is not None and array.size == 1 and float(array.reshape(())) == 0.5


def _is_bracket(value: ir.Value | None) -> bool:
    """Whether `value` is 1 + erf of something."""
    node = maker(value, "Add")
    return node is not None and any(maker(operand, "Erf") is not None for operand in node.inputs)
