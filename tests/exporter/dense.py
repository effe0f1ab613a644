"""Tiny dense networks as ONNX: a backbone of four levels, and heads that take several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx import NodeProto, TensorProto, helper, numpy_helper

SIZE = 32  # of the image; level i has a side of SIZE / 2**(i + 1)
CHANNELS = (4, 6, 8, 10)


@dataclass
class Dense:
    """float32 (batch, 3, 32, 32) -> four levels of residual blocks -> a head. Equal seeds, equal weights.

    levels: the seed of each. head: one of HEADS; seed: its weights. pooled: whether a MaxPool follows the first convolution.
    """

    head: str
    seed: int = 90
    levels: Sequence[int] = (10, 20, 30, 40)
    pooled: bool = False
    _nodes: list[NodeProto] = field(default_factory=list)
    _weights: dict[str, TensorProto] = field(default_factory=dict)
    _channels: dict[str, int] = field(default_factory=dict)

    def model(self) -> ir.Model:
        self._nodes, self._weights, self._channels = [], {}, {"image": 3}
        taps, x = [], "image"
        for index, (seed, channels) in enumerate(zip(self.levels, CHANNELS, strict=True)):
            x = self._level(f"level{index}", x, seed, channels)
            taps.append(x)
        outputs = HEADS[self.head](self, taps)
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self._nodes, "dense", [image], infos, [*self._weights.values()])
        return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))

    def _level(self, name: str, x: str, seed: int, channels: int) -> str:
        x = self.relu(self.conv(f"{name}.down", x, seed, channels, 3, 2))
        if self.pooled and name == "level0":
            x = self.node("MaxPool", f"{name}.pool", x, kernel_shape=[3, 3], pads=[1] * 4)
        inner = self.relu(self.conv(f"{name}.a", x, seed + 1, channels, 3))
        return self.relu(self.node("Add", f"{name}.sum", x, self.conv(f"{name}.b", inner, seed + 2, channels, 3)))

    def conv(self, name: str, x: str, seed: int, channels: int, kernel: int = 1, stride: int = 1) -> str:
        shape = channels, self._channels[x], kernel, kernel
        values = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        self.node(
            "Conv",
            name,
            x,
            self.weight(f"{name}.weight", values.astype(np.float32)),
            pads=[kernel // 2] * 4,
            strides=[stride] * 2,
        )
        self._channels[name] = channels
        return name

    def relu(self, x: str) -> str:
        return self.node("Relu", f"{x}.relu", x)

    def up(self, x: str) -> str:
        scales = self.weight("scales", np.array([1, 1, 2, 2], np.float32))
        return self.node("Resize", f"{x}.up", x, "", scales, mode="nearest")

    def concat(self, name: str, left: str, right: str) -> str:
        self.node("Concat", name, left, right, axis=1)
        self._channels[name] = self._channels[left] + self._channels[right]
        return name

    def flat(self, name: str, x: str, seed: int, size: int) -> str:
        pooled = self.node("Flatten", f"{name}.flat", self.node("GlobalAveragePool", f"{name}.pool", x))
        values = np.random.default_rng(seed).standard_normal((self._channels[x], size)).astype(np.float32)
        return self.node("MatMul", name, pooled, self.weight(f"{name}.weight", values))

    def node(self, op: str, name: str, *inputs: str, **attributes: object) -> str:
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=f"node {name}", **attributes))
        self._channels[name] = self._channels[inputs[0]]
        return name

    def weight(self, name: str, values: np.ndarray) -> str:
        self._weights[name] = numpy_helper.from_array(values, name)
        return name


def _classes(net: Dense, levels: list[str]) -> list[str]:
    return [net.flat("classes", levels[-1], net.seed, 5)]


def _early_classes(net: Dense, levels: list[str]) -> list[str]:
    return [net.flat("classes", levels[1], net.seed, 5)]


def _pyramid(net: Dense, levels: list[str]) -> list[str]:
    """FPN: lateral convolutions, from the top down; the answer at the finest level."""
    x = ""
    for index in reversed(range(4)):
        lateral = net.conv(f"lateral{index}", levels[index], net.seed + index, 4)
        x = net.node("Add", f"merged{index}", lateral, net.up(x)) if x else lateral
    return [net.conv("mask", net.relu(net.conv("smooth", x, net.seed + 5, 4, 3)), net.seed + 6, 2)]


def _unet(net: Dense, levels: list[str]) -> list[str]:
    """U-Net: from the top up, each level beside, and in the end the image itself."""
    x = levels[3]
    for index in reversed(range(3)):
        x = net.relu(net.conv(f"up{index}", net.concat(f"beside{index}", net.up(x), levels[index]), net.seed + index, 4, 3))
    x = net.concat("beside image", net.up(x), "image")
    return [net.conv("mask", x, net.seed + 5, 1, 3)]


def _hypercolumn(net: Dense, levels: list[str]) -> list[str]:
    """DPT-like: two levels reassembled to one size, a depth for each of its places."""
    low, high = (net.conv(f"assembled{index}", levels[index], net.seed + index, 4) for index in (1, 3))
    both = net.concat("both", low, net.up(net.up(high)))
    return [net.conv("depth", net.relu(net.conv("mixed", both, net.seed + 5, 4, 3)), net.seed + 6, 1)]


def _stem_mask(net: Dense, levels: list[str]) -> list[str]:
    """U-Net-like: what the first convolution gives, in front of any pooling, beside the last level."""
    last = net.up(net.up(net.up(net.conv("last", levels[3], net.seed, 4))))
    return [net.node("Add", "mask", net.conv("first", "level0.down.relu", net.seed + 1, 4, 3), last)]


def _detector(net: Dense, levels: list[str]) -> list[str]:
    """SSD-like: boxes and classes at two levels, each an answer of its own."""
    outputs = []
    for index in (2, 3):
        tower = net.relu(net.conv(f"tower{index}", levels[index], net.seed + index, 6, 3))
        outputs += [
            net.conv(f"boxes{index}", tower, net.seed + 10 + index, 4),
            net.conv(f"kinds{index}", tower, net.seed + 20 + index, 3),
        ]
    return outputs


HEADS = {
    "classes": _classes,
    "early classes": _early_classes,
    "pyramid": _pyramid,
    "unet": _unet,
    "hypercolumn": _hypercolumn,
    "stem mask": _stem_mask,
    "detector": _detector,
}
