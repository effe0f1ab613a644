"""A tiny recurrent network as ONNX, as torch writes one with `batch_first`: LSTM, GRU and a head."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import NodeProto, TensorProto, helper, numpy_helper

STEPS, FEATURES, HIDDEN = 5, 4, 3


def recurrent(lstm: int = 1, gru: int = 2, head: int = 3) -> ir.Model:
    """float (batch, 5, 4) -> LSTM of 3 -> GRU of 3 -> its last step -> (batch, 2). Equal seeds, equal weights."""
    nodes: list[NodeProto] = []
    weights = [numpy_helper.from_array(np.array([1], np.int64), "axis"), numpy_helper.from_array(np.array(-1, np.int64), "last")]

    def normal(name: str, seed: int, *shape: int) -> str:
        array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        weights.append(numpy_helper.from_array(array, name))
        return name

    def node(op: str, output: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=f"node {output}", **attributes))
        return output

    def layer(op: str, gates: int, x: str, seed: int, size: int) -> str:
        turned = node("Transpose", f"{op} in", x, perm=[1, 0, 2])  # to (steps, batch, features)
        inner = normal(f"{op}.w", seed, 1, gates * HIDDEN, size)
        state = normal(f"{op}.r", seed + 100, 1, gates * HIDDEN, HIDDEN)
        out = node("Squeeze", f"{op} squeezed", node(op, f"{op} y", turned, inner, state, hidden_size=HIDDEN), "axis")
        return node("Transpose", f"{op} out", out, perm=[1, 0, 2])

    x = layer("LSTM", 4, "series", lstm, FEATURES)
    x = layer("GRU", 3, x, gru, HIDDEN)
    x = node("Gather", "last step", x, "last", axis=1)
    node("MatMul", "logits", x, normal("head", head, HIDDEN, 2))
    series = helper.make_tensor_value_info("series", TensorProto.FLOAT, ["batch", STEPS, FEATURES])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "recurrent", [series], [logits], weights)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
