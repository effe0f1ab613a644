"""Multiply-accumulates (MACs) of ONNX nodes, by shape arithmetic.

Convention: as in torch's flop counter, convolutions and matrix products count, one multiply-add is one MAC, and GFLOPs = 2 x GMACs.
Those of integers and those inside of recurrent layers count alike. Biases, activations, gates, normalisation and softmax are left out;
operator types without any product are listed as uncounted, never silently dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from exporter.errors import UncountableShapes
from exporter.graph.contrib_macs import CONTRIB_COUNTERS
from exporter.graph.foreign import CONTROL_FLOW, operator_name
from exporter.graph.shapes import Shapes, shape_of

# Operators that only move or reinterpret data, or compute shapes: nothing to count.
_MOVES = frozenset(
    (
        *(
            "Reshape",
            "Transpose",
            "Flatten",
            "Squeeze",
            "Unsqueeze",
            "Identity",
            "Concat",
            "Split",
            "Slice",
            "Gather",
            "Expand",
            "Pad",
        ),
        *("Tile", "DepthToSpace", "SpaceToDepth", "Cast", "CastLike", "Shape", "Size", "Range", "Constant", "ConstantOfShape"),
    )
)


@dataclass(frozen=True)
class Macs:
    """MACs of a run of nodes for one row, and the operator types that were left out of the count."""

    total: int
    uncounted: tuple[str, ...]


def count_macs(nodes: Iterable[ir.Node], shapes: Shapes, flow: Mapping[ir.Node, Macs] | None = None) -> Macs:
    """Count `nodes` with `shapes` inferred for one row. Raises UncountableShapes when a needed shape is missing.

    flow: what was counted of nodes with bodies.
    """
    total, uncounted = 0, set[str]()
    for node in nodes:
        if flow and node in flow:
            total += flow[node].total
            uncounted.update(flow[node].uncounted)
            continue
        counter = _COUNTERS.get(operator_name(node))
        if counter is not None:
            try:
                total += counter(node, shapes)
            except KeyError as error:
                raise UncountableShapes(f"{operator_name(node)} {node.name}", [str(error.args[0])]) from error
        elif node.op_type not in _MOVES:
            uncounted.add(node.op_type)
    return Macs(total, tuple(sorted(uncounted)))


def _conv(node: ir.Node, shapes: Shapes) -> int:
    # Each output element sums over (input channels / groups) x kernel: the weight's shape without its first axis.
    return prod(shape_of(node.outputs[0], shapes)) * prod(shape_of(node.inputs[1], shapes)[1:])


def _conv_transpose(node: ir.Node, shapes: Shapes) -> int:
    # Each input element is multiplied into (output channels / groups) x kernel.
    return prod(shape_of(node.inputs[0], shapes)) * prod(shape_of(node.inputs[1], shapes)[1:])


def _matmul(node: ir.Node, shapes: Shapes) -> int:
    return prod(shape_of(node.outputs[0], shapes)) * shape_of(node.inputs[0], shapes)[-1]


def _gemm(node: ir.Node, shapes: Shapes) -> int:
    inner = shape_of(node.inputs[0], shapes)[0 if node.attributes.get_int("transA", 0) else 1]
    return prod(shape_of(node.outputs[0], shapes)) * inner


def _einsum(node: ir.Node, shapes: Shapes) -> int:
    """Count one multiply-add per combination of all indices; nothing for an equation that only moves or multiplies element by element."""
    attribute = node.attributes.get_string("equation", "")
    equation = "".join(str(attribute).split())
    inputs, arrow, output = equation.partition("->")
    if not arrow:
        raise KeyError(f"the output of {equation!r}")
    dims: dict[str, int] = {}
    for term, value in zip(inputs.split(","), node.inputs, strict=True):
        dims |= indices_of_term(term, shape_of(value, shapes))
    kept = set(indices_of_term(output, shape_of(node.outputs[0], shapes)))
    contracted = any(index not in kept for index in dims)
    return prod(dims.values()) if len(node.inputs) > 1 and contracted else 0


def _recurrent(node: ir.Node, shapes: Shapes) -> int:
    """Count, per step of the sequence, the products with W and with R, for each direction.

    By the equations of ONNX's operators (github.com/onnx/onnx/blob/main/docs/Operators.md#lstm): W is (directions, gates x hidden, input),
    R is (directions, gates x hidden, hidden); the projections P of peepholes are element by element, and so are gates.
    """
    # (sequence, batch, input), or (batch, sequence, input) with layout 1: the product of both is the same.
    steps = prod(shape_of(node.inputs[0], shapes)[:2])
    return steps * (prod(shape_of(node.inputs[1], shapes)) + prod(shape_of(node.inputs[2], shapes)))


def _qlinear_conv(node: ir.Node, shapes: Shapes) -> int:
    # x, its scale and zero point, and then the weight: as a convolution.
    return prod(shape_of(node.outputs[0], shapes)) * prod(shape_of(node.inputs[3], shapes)[1:])


def indices_of_term(term: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Return the sizes of the indices of a term; those of its ellipsis are named by their place from its end."""
    before, ellipsis, after = term.partition("...")
    hidden = len(shape) - len(before) - len(after) if ellipsis else 0
    names = [*before, *(f"...{index}" for index in range(hidden, 0, -1)), *after]
    return dict(zip(names, shape, strict=True))


_COUNTERS: dict[str, Callable[[ir.Node, Shapes], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    # a, b and their zero points; a, its scale and zero point, b: the product's shape, and the first operand's, are those of a MatMul.
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "ConvInteger": _conv,
    "QLinearConv": _qlinear_conv,
    **CONTRIB_COUNTERS,
}
PRODUCTS = frozenset(_COUNTERS)  # the operators that count, by their domain and type where that is not ONNX's own


def is_product(node: ir.Node) -> bool:
    """Return whether `node` has MACs; control flow may have."""
    return node.domain == CONTROL_FLOW or operator_name(node) in PRODUCTS
