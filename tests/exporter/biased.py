"""Dense networks whose matrices are equal and whose biases are not, as BitFit leaves them: no computation is equal after the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

WIDTH = 128  # a matrix of 65,536 bytes: large enough for a file


def biased(bias: int, head: int, seeds: Sequence[int] = (1, 2), noise: float = 0.0) -> ir.Model:
    """tanh(x W + b) for each of `seeds`, and a head. bias: the seed of all biases. noise: relative, on all matrices."""
    nodes, weights, source = [], [], "image"

    def layer(name: str, array: np.ndarray, seed: int) -> str:
        offset = np.random.default_rng(seed).standard_normal(array.shape[1]).astype(np.float32)
        weights.extend([numpy_helper.from_array(array, f"{name}.weight"), numpy_helper.from_array(offset, f"{name}.bias")])
        nodes.append(helper.make_node("Gemm", [source, f"{name}.weight", f"{name}.bias"], [name], name=f"node {name}"))
        return name

    for index, seed in enumerate(seeds):
        matrix = np.random.default_rng(seed).standard_normal((WIDTH, WIDTH)).astype(np.float32) / np.float32(np.sqrt(WIDTH))
        wobble = np.random.default_rng(seed + 500).uniform(-1, 1, matrix.shape).astype(np.float32)
        source = layer(f"layer{index}", matrix * (1 + np.float32(noise) * wobble), 1000 * bias + index)
        nodes.append(helper.make_node("Tanh", [source], [f"tanh{index}"]))
        source = f"tanh{index}"
    layer("logits", np.random.default_rng(9000 + head).standard_normal((WIDTH, 3)).astype(np.float32), head)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("image", WIDTH), ("logits", 3))
    ]
    graph = helper.make_graph(nodes, "biased", ends[:1], ends[1:], weights)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
