"""Tiny real networks as ONNX, built by hand: an image network of residual blocks whose weights follow from seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 4
SIZE = 6


@dataclass(frozen=True)
class Net:
    """uint8 (batch, 6, 6, 3) -> scale -> stem -> residual blocks -> pooling -> head. Equal seeds, equal weights.

    prefix: put before every name. reverse_ties: list independent nodes in another order.
    """

    blocks: Sequence[int] = (1, 2, 3, 4)
    head: int = 0
    classes: int = 3
    stem: int = 100
    scale: float = 1 / 255
    prefix: str = ""
    reverse_ties: bool = False

    def proto(self) -> onnx.ModelProto:
        nodes: list[onnx.NodeProto] = []
        weights: list[onnx.TensorProto] = []

        def weight(name: str, array: np.ndarray) -> str:
            weights.append(numpy_helper.from_array(array, self.prefix + name))
            return self.prefix + name

        def node(op: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
            output = name if name == "logits" else self.prefix + name
            nodes.append(helper.make_node(op, inputs, [output], name=f"{self.prefix}node_{name}", **attributes))
            return output

        x = node("Transpose", ["image"], "nchw", perm=[0, 3, 1, 2])
        x = node("Cast", [x], "float", to=TensorProto.FLOAT)
        x = node("Mul", [x, weight("scale", np.full((1, 3, 1, 1), self.scale, np.float32))], "scaled")
        x = node("Conv", [x, weight("stem.weight", _normal(self.stem, (CHANNELS, 3, 3, 3)))], "stem", pads=[1, 1, 1, 1])
        x = node("Relu", [x], "stem_relu")
        for index, seed in enumerate(self.blocks):
            left = [weight(f"{index}.left", _normal(seed, (CHANNELS, CHANNELS, 3, 3)))]
            right = [weight(f"{index}.right", _normal(seed + 1000, (CHANNELS, CHANNELS, 1, 1)))]
            names = [(f"{index}.a", left, [1, 1, 1, 1]), (f"{index}.b", right, [0, 0, 0, 0])]
            for name, kernel, pads in reversed(names) if self.reverse_ties else names:
                node("Conv", [x, *kernel], name, pads=pads)
            x = node("Add", [f"{self.prefix}{index}.a", f"{self.prefix}{index}.b"], f"{index}.sum")
            x = node("Relu", [x], f"{index}.out")
        x = node("GlobalAveragePool", [x], "pool")
        x = node("Flatten", [x], "flat")
        head = weight("head.weight", _normal(self.head + 5000, (CHANNELS, self.classes)))
        node("Gemm", [x, head, weight("head.bias", _normal(self.head + 6000, (self.classes,)))], "logits")
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", self.classes])
        graph = helper.make_graph(nodes, "net", [image], [logits], weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

    def model(self) -> ir.Model:
        return ir.from_proto(self.proto())

    def save(self, path: Path) -> Path:
        onnx.save(self.proto(), path)
        return path


def _normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    # Scaled so that activations neither vanish nor explode over the blocks.
    fan_in = int(np.prod(shape[1:])) or 1
    return (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
