"""Which axes of its inputs an operator mixes: what an entry of its result along them depends on more than one entry there.

For operators whose inputs may have the batch on any axis: a Softmax over axis 1 leaves rows on axis 0 alone, and one over axis 0 does not.
Operators that lose an axis (reductions) or gain one (products of rows with rows) are recognised by the shapes of their results instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import onnx_ir as ir

from exporter.graph.macs import indices_of_term

Contents = Callable[[ir.Value | None], Sequence[int] | None]
Axes = Mapping[int, Collection[int]]  # by position of the input

_PLAIN_NAMES = (
    "Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil "
    "Celu Clip Cos Cosh DequantizeLinear Div Dropout Elu Equal Erf Exp Expand Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish "
    "Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not OneHot Or PRelu Pow QuantizeLinear "
    "Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare "
    "Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Tan Tanh ThresholdedRelu Transpose Where Xor"
)
_BY_ROW_NAMES = (
    "Conv ConvTranspose ConvInteger QLinearConv DeformConv DepthToSpace SpaceToDepth GridSample GroupNormalization Col2Im"
)
_BY_PLANE_NAMES = "AveragePool MaxPool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool InstanceNormalization Resize Upsample"
# Entry by entry, or by shapes alone: nothing is mixed that the shape of the result would not tell.
_PLAIN = frozenset(_PLAIN_NAMES.split())
# Put what was one axis onto others; whether rows stay together is told by where the batch was and is.
REARRANGING = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))
# Rows come first, and each is computed by itself; or planes, each by itself.
_BY_ROW, _BY_PLANE = frozenset(_BY_ROW_NAMES.split()), frozenset(_BY_PLANE_NAMES.split())
_RECURRENT = frozenset(("LSTM", "GRU", "RNN"))
_SOFTMAX = frozenset(("Softmax", "LogSoftmax", "Hardmax"))


def mixed_axes(node: ir.Node, rank: Sequence[int], opset: int, contents: Contents) -> Axes | None:
    """Return, per input, the axes that `node` mixes; None for an operator that is not known here.

    rank: the number of axes of each input. opset: of the default domain. contents: the whole numbers in a constant, or None.
    """
    name = node.op_type
    if name in _PLAIN or name in REARRANGING:
        return {}
    if name in _BY_ROW:
        return {0: range(1, rank[0]), 1: range(rank[1]) if len(rank) > 1 and name not in ("GridSample", "DeformConv") else ()}
    if name in _BY_PLANE:
        return {0: range(2, rank[0])}
    if name in _SOFTMAX:
        axis = _axis(node, -1 if opset >= 13 else 1, rank[0])
        return {0: range(axis, axis + 1 if opset >= 13 else rank[0])}
    rule = _RULES.get(name)
    return rule(node, rank, contents) if rule is not None else None


def _axis(node: ir.Node, default: int, rank: int) -> int:
    return node.attributes.get_int("axis", default) % max(rank, 1)


def _one_axis(default: int) -> Callable[[ir.Node, Sequence[int], Contents], Axes]:
    return lambda node, rank, contents: {0: [_axis(node, default, rank[0])]}


def _every_axis(node: ir.Node, rank: Sequence[int], contents: Contents) -> Axes:
    return {0: [_axis(node, 0, rank[0])] if "axis" in node.attributes else range(rank[0])}


def _cumsum(node: ir.Node, rank: Sequence[int], contents: Contents) -> Axes:
    axis = contents(node.inputs[1])
    return {0: range(rank[0]) if axis is None else [axis[0] % rank[0]]}


def _layer_norm(node: ir.Node, rank: Sequence[int], contents: Contents) -> Axes:
    return {0: range(_axis(node, -1, rank[0]), rank[0])}


def _mean_variance(node: ir.Node, rank: Sequence[int], contents: Contents) -> Axes:
    return {0: [axis % rank[0] for axis in node.attributes.get_ints("axes", (0, 2, 3))]}


def _batch_norm(node: ir.Node, rank: Sequence[int], contents: Contents) -> Axes:
    training = node.attributes.get_int("training_mode", 0)
    return {0: [axis for axis in range(rank[0]) if axis != 1] if training else ()}


def _recurrent(node: ir.Node, rank: Sequence[int], contents: Contents) -> Axes:
    sequence = 1 if node.attributes.get_int("layout", 0) else 0
    return {0: [sequence, 2]}


def _reverse(node: ir.Node, rank: Sequence[int], contents: Contents) -> Axes:
    return {0: [node.attributes.get_int("time_axis", 0)]}


def _last_two(node: ir.Node, rank: Sequence[int], contents: Contents) -> Axes:
    return {0: range(rank[0] - 2, rank[0])}


def _matmul(left: int, right: int) -> Callable[[ir.Node, Sequence[int], Contents], Axes]:
    """Return the rule of a product of the inputs `left` and `right`: they meet in the last axis of one, the last but one of the other."""
    return lambda node, rank, contents: {left: [rank[left] - 1], right: [max(rank[right] - 2, 0)]}


def _gemm(node: ir.Node, rank: Sequence[int], contents: Contents) -> Axes:
    return {0: [0 if node.attributes.get_int("transA", 0) else 1], 1: [1 if node.attributes.get_int("transB", 0) else 0]}


def _einsum(node: ir.Node, rank: Sequence[int], contents: Contents) -> Axes | None:
    left, arrow, output = "".join(node.attributes.get_string("equation", "").split()).partition("->")
    if not arrow:
        return None
    terms = [[*indices_of_term(term, (0,) * size)] for term, size in zip(left.split(","), rank, strict=True)]
    kept = {*output.replace(".", "")}
    lost = [[axis for axis, name in enumerate(term) if name not in kept and not name.startswith(".")] for term in terms]
    return dict(enumerate(lost))


_RULES: Mapping[str, Callable[[ir.Node, Sequence[int], Contents], Axes | None]] = {
    "TopK": _one_axis(-1),
    "LpNormalization": _one_axis(-1),
    "CumSum": _cumsum,
    "Unique": _every_axis,
    "Compress": _every_axis,
    "LayerNormalization": _layer_norm,
    "MeanVarianceNormalization": _mean_variance,
    "BatchNormalization": _batch_norm,
    "LRN": lambda node, rank, contents: {0: [1]},
    "ReverseSequence": _reverse,
    "Trilu": _last_two,
    "Det": _last_two,
    "MatMul": _matmul(0, 1),
    "MatMulInteger": _matmul(0, 1),
    "QLinearMatMul": _matmul(0, 3),
    "Gemm": _gemm,
    "Einsum": _einsum,
    **dict.fromkeys(_RECURRENT, _recurrent),
}
