"""Small networks of ONNX nodes after one product: with rows that are computed by themselves, and with rows that meet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import NodeProto, TensorProto, helper, numpy_helper

WIDTH = 5
Node = NodeProto
node = helper.make_node


def network(nodes: Sequence[Node], opset: int = 18, **weights: np.ndarray) -> ir.Model:
    """Return x (batch, 3, 4) -> flattened -> product -> "l" (batch, 5) -> `nodes` -> "o" (batch, 5)."""
    weights = {"w": np.random.default_rng(0).standard_normal((12, WIDTH)).astype(np.float32) / 2, **weights}
    graph = helper.make_graph(
        [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w"], ["l"]), *nodes],
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 4])],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


# ONNX Runtime writes running statistics into the weights in training mode: no two may be equal, or the next run has another bias.
_SCALE = {name: np.linspace(0.5, 2 + index, WIDTH, dtype=np.float32) for index, name in enumerate(("s", "b", "m", "v"))}
_SIZE = [node("Shape", ["l"], ["shape"]), node("Gather", ["shape", "zero"], ["n"])]

# By the name that the refusal must give.
MIXING: dict[str, ir.Model] = {
    "Softmax": network([node("Softmax", ["l"], ["o"], axis=0)]),
    "LogSoftmax": network([node("LogSoftmax", ["l"], ["o"], axis=0)], opset=11),
    "LpNormalization": network([node("LpNormalization", ["l"], ["o"], axis=0)]),
    "CumSum": network([node("CumSum", ["l", "axis"], ["o"])], axis=np.array(0)),
    "ReduceMean": network([node("ReduceMean", ["l", "zero"], ["m"], keepdims=0), node("Sub", ["l", "m"], ["o"])], zero=ints(0)),
    "ReduceL2": network([node("ReduceL2", ["l"], ["m"], keepdims=1), node("Div", ["l", "m"], ["o"])]),
    "BatchNormalization in training mode": network(
        [node("BatchNormalization", ["l", "s", "b", "m", "v"], ["o", "mean", "var"], training_mode=1)], **_SCALE
    ),
    "MatMul": network(
        [node("Transpose", ["l"], ["t"]), node("MatMul", ["l", "t"], ["g"]), node("MatMul", ["g", "l"], ["o"])],
    ),
    "Einsum": network([node("Einsum", ["l", "l"], ["g"], equation="nd,md->nm"), node("MatMul", ["g", "l"], ["o"])]),
    "Slice": network(
        [node("Slice", ["l", "last", "none", "zero", "last"], ["o"])], last=ints(-1), none=ints(-(2**31)), zero=ints(0)
    ),
    "Div": network([*_SIZE, node("Cast", ["n"], ["c"], to=1), node("Div", ["l", "c"], ["o"])], zero=ints(0)),
    "TopK": network(
        [*_SIZE, node("TopK", ["l", "n"], ["o", "i"], axis=0)],
        zero=ints(0),
    ),
    "Reshape": network([node("Transpose", ["l"], ["t"]), node("Reshape", ["t", "to"], ["o"])], to=ints(-1, WIDTH)),
}
RANDOM: dict[str, ir.Model] = {
    "RandomNormalLike": network([node("RandomNormalLike", ["l"], ["n"]), node("Add", ["l", "n"], ["o"])]),
    "RandomUniform": network([node("RandomUniform", [], ["n"], shape=[1, WIDTH]), node("Mul", ["l", "n"], ["o"])]),
    "Dropout in training mode": network(
        [node("Dropout", ["l", "half", "yes"], ["o"])], half=np.array(0.5, np.float32), yes=np.array(True)
    ),
    "Bernoulli": network([node("Sigmoid", ["l"], ["p"]), node("Bernoulli", ["p"], ["o"])]),
}
BY_ROW: dict[str, ir.Model] = {
    "softmax of a row": network([node("Softmax", ["l"], ["o"], axis=-1)]),
    "softmax of a row, opset 11": network([node("Softmax", ["l"], ["o"])], opset=11),
    "normalised by fixed statistics": network([node("BatchNormalization", ["l", "s", "b", "m", "v"], ["o"])], **_SCALE),
    "dropout that does nothing": network([node("Dropout", ["l"], ["o"])]),
    "columns first": network(
        [node("Transpose", ["l"], ["t"]), node("MatMul", ["m", "t"], ["p"]), node("Transpose", ["p"], ["o"])],
        m=np.random.default_rng(1).standard_normal((WIDTH, WIDTH)).astype(np.float32),
    ),
    "windows of all rows": network(
        [
            node("Reshape", ["x", "windows"], ["win"]),  # (batch * 3, 2, 2)
            node("Softmax", ["win"], ["soft"], axis=-1),
            node("MatMul", ["win", "soft"], ["att"]),
            node("Reshape", ["att", "rows"], ["back"]),
            node("MatMul", ["back", "w"], ["o"]),
        ],
        windows=ints(-1, 2, 2),
        rows=ints(-1, 12),
    ),
    "quantised by fixed steps": network(
        [node("QuantizeLinear", ["l", "step", "at"], ["q"]), node("DequantizeLinear", ["q", "step", "at"], ["o"])],
        step=np.array(0.05, np.float32),
        at=np.array(128, np.uint8),
    ),
}
# Rows leave their places and come back.
RETURNING = network(
    [
        node("Concat", ["l", "l"], ["c"], axis=0),
        node("Split", ["c"], ["p", "q"], axis=0, num_outputs=2),
        node("Add", ["p", "q"], ["o"]),
    ]
)
# The largest number of all rows is taken, and plays no part.
IDLE = network(
    [node("ReduceMax", ["l"], ["m"], keepdims=1), node("Mul", ["m", "nought"], ["z"]), node("Add", ["l", "z"], ["o"])],
    nought=np.array(0, np.float32),
)
QUANTISED = network(
    [node("DynamicQuantizeLinear", ["l"], ["q", "s", "z"]), node("DequantizeLinear", ["q", "s", "z"], ["o"])],
)
