"""Small convolutional networks with poolings anywhere: the same weights at several resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx import NodeProto, TensorProto, helper, numpy_helper

SIZE, CHANNELS = 16, 4


def convolved(layers: Sequence[int], head: int) -> ir.Model:
    """float (batch, 4, 16, 16) -> `layers` -> (batch, 3). A number is the seed of a convolution, 0 a pooling that halves; equal seeds,
    equal weights."""
    nodes: list[NodeProto] = []
    weights = {}

    def node(op: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{op} {len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def weight(name: str, seed: int, *shape: int) -> str:
        array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
        weights[name] = numpy_helper.from_array(array, name)
        return name

    x = "image"
    for seed in layers:
        if seed:
            x = node("Tanh", node("Conv", x, weight(f"w{seed}", seed, CHANNELS, CHANNELS, 3, 3), pads=[1] * 4))
        else:
            x = node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = node("Flatten", node("GlobalAveragePool", x))
    nodes.append(helper.make_node("MatMul", [x, weight("head", head, CHANNELS, 3)], ["logits"]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", CHANNELS, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "convolved", [image], [logits], [*weights.values()])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
