"""Multiply-accumulates of the operators that ONNX Runtime puts in the place of ONNX's, by the convention of macs.py.

By what github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md says that they compute. What is not here has no products
(EmbedLayerNormalization, SkipLayerNormalization, BiasGelu, FastGelu), or is listed as left out.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import onnx_ir as ir

from exporter.graph.shapes import Shapes, shape_of

Counter = Callable[[ir.Node, Shapes], int]


def _fused_matmul(node: ir.Node, shapes: Shapes) -> int:
    # transBatchA moves the first axis to the last but one; transA exchanges the last two then.
    left = shape_of(node.inputs[0], shapes)
    turned, moved = (bool(node.attributes.get_int(name, 0)) for name in ("transA", "transBatchA"))
    inner = left[-1] if not turned or len(left) == 1 else left[0] if moved else left[-2]
    return prod(shape_of(node.outputs[0], shapes)) * inner


def _gemm(node: ir.Node, shapes: Shapes) -> int:
    inner = shape_of(node.inputs[0], shapes)[0 if node.attributes.get_int("transA", 0) else 1]
    return prod(shape_of(node.outputs[0], shapes)) * inner


def _last_axis(node: ir.Node, shapes: Shapes) -> int:
    return prod(shape_of(node.outputs[0], shapes)) * shape_of(node.inputs[0], shapes)[-1]


def _conv(node: ir.Node, shapes: Shapes) -> int:
    # Whether the channels of the weight come second or last: its first axis is left out.
    return prod(shape_of(node.outputs[0], shapes)) * prod(shape_of(node.inputs[1], shapes)[1:])


def _qlinear_conv(node: ir.Node, shapes: Shapes) -> int:
    return prod(shape_of(node.outputs[0], shapes)) * prod(shape_of(node.inputs[3], shapes)[1:])


def _recurrent(node: ir.Node, shapes: Shapes) -> int:
    # W is (directions, input, gates x hidden), R (directions, hidden, gates x hidden).
    steps = prod(shape_of(node.inputs[0], shapes)[:2])
    return steps * (prod(shape_of(node.inputs[1], shapes)) + prod(shape_of(node.inputs[2], shapes)))


def _attention(past: int) -> Counter:
    """Return the counter of an attention that makes its queries, keys and values itself. past: the input with those of before."""

    def count(node: ir.Node, shapes: Shapes) -> int:
        rows, steps, _ = shape_of(node.inputs[0], shapes)
        weight = shape_of(node.inputs[1], shapes)
        query, _, value = node.attributes.get_ints("qkv_hidden_sizes", None) or (weight[-1] // 3,) * 3
        seen = steps + _past(node, past, 3, shapes)
        return rows * steps * (prod(weight) + seen * (query + value))

    return count


def _multi_head_attention(node: ir.Node, shapes: Shapes) -> int:
    """Count the products of queries with keys, and of what comes out with values; all three may lie in one tensor."""
    query, result = shape_of(node.inputs[0], shapes), shape_of(node.outputs[0], shapes)
    rows, steps = query[:2]
    hidden = query[2] * query[4] if len(query) == 5 else query[2]
    key = shape_of(node.inputs[1], shapes) if len(node.inputs) > 1 and node.inputs[1] is not None else query
    seen = key[2] if len(key) == 4 else key[1]
    return rows * steps * (seen + _past(node, 6, 2, shapes)) * (hidden + result[-1])


def _past(node: ir.Node, position: int, axis: int, shapes: Shapes) -> int:
    given = node.inputs[position] if len(node.inputs) > position else None
    return 0 if given is None else shape_of(given, shapes)[axis]


CONTRIB_COUNTERS: dict[str, Counter] = {
    f"com.microsoft.{name}": counter
    for name, counter in (
        ("FusedMatMul", _fused_matmul),
        ("FusedMatMulActivation", _fused_matmul),
        ("TransposeMatMul", _fused_matmul),
        ("FusedGemm", _gemm),
        ("QGemm", _gemm),
        ("MatMulNBits", _last_axis),
        ("MatMulBnb4", _last_axis),
        ("MatMulIntegerToFloat", _last_axis),
        ("DynamicQuantizeMatMul", _last_axis),
        ("FusedConv", _conv),
        ("NhwcFusedConv", _conv),
        ("NhwcConv", _conv),
        ("QLinearConv", _qlinear_conv),
        ("nchwc.Conv", _conv),
        ("DynamicQuantizeLSTM", _recurrent),
        ("Attention", _attention(past=4)),
        ("QAttention", _attention(past=8)),
        ("MultiHeadAttention", _multi_head_attention),
    )
}
