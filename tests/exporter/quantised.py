"""Small convolutional networks in int8, as ONNX Runtime's quantize_static writes them (QDQ), with one step for all that passes between
layers, so that frozen layers behind tuned ones are equal, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx import NodeProto, TensorProto, helper, numpy_helper

SIZE, CHANNELS, STEP = 8, 4, 0.05


@dataclass
class Quantised:
    """Layers quantise(conv(dequantise(x))), weights by channel; equal seeds, equal weights. step: of what passes between layers."""

    step: float = STEP
    nodes: list[NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{op} {len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def constant(self, name: str, array: np.ndarray) -> str:
        self.weights[name] = array
        return name

    def quantise(self, x: str) -> str:
        return self.node("QuantizeLinear", x, *self._steps())

    def dequantise(self, x: str) -> str:
        return self.node("DequantizeLinear", x, *self._steps())

    def _steps(self) -> tuple[str, str]:
        return self.constant("step", np.float32(self.step)), self.constant("zero", np.uint8(100))

    def weight(self, seed: int, *shape: int, axis: int = 0) -> str:
        """A weight in int8 with a step for each entry of `axis`."""
        name, rng = f"w{seed}", np.random.default_rng(seed)
        numbers = self.constant(name, rng.integers(-127, 128, shape, dtype=np.int8))
        steps = self.constant(f"{name}.step", rng.uniform(0.002, 0.004, shape[axis]).astype(np.float32))
        zeros = self.constant(f"{name}.zero", np.zeros(shape[axis], np.int8))
        return self.node("DequantizeLinear", numbers, steps, zeros, axis=axis)

    def layer(self, x: str, seed: int) -> str:
        """A convolution that takes and gives quantised numbers."""
        return self.quantise(self.node("Conv", self.dequantise(x), self.weight(seed, CHANNELS, CHANNELS, 3, 3), pads=[1] * 4))

    def layers(self, x: str, seeds: Sequence[int]) -> str:
        for seed in seeds:
            x = self.layer(x, seed)
        return x

    def head(self, x: str, seed: int, name: str = "logits") -> str:
        pooled = self.node("Flatten", self.node("GlobalAveragePool", self.dequantise(x)))
        channels = CHANNELS * (2 if "Concat" in x else 1)
        self.nodes.append(helper.make_node("MatMul", [pooled, self.weight(seed, channels, 3, axis=1)], [name]))
        return name

    def model(self, *outputs: str) -> ir.Model:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", CHANNELS, SIZE, SIZE])
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in outputs]
        weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in self.weights.items()]
        graph = helper.make_graph(self.nodes, "quantised", [image], results, weights)
        return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


def quantised(seeds: Sequence[int], head: int, step: float = STEP) -> ir.Model:
    """float (batch, 4, 8, 8) -> a convolution for each of `seeds` -> (batch, 3)."""
    net = Quantised(step)
    return net.model(net.head(net.layers(net.quantise("image"), seeds), head))


def quantised_siamese(frozen: Sequence[int], shared: int, own: Sequence[int], head: int) -> ir.Model:
    """A head on what the `frozen` layers give, and on what the `own` ones do beside them, behind `shared` of the frozen."""
    net = Quantised()
    fork = net.layers(net.quantise("image"), frozen[:shared])
    both = net.node("Concat", net.layers(fork, frozen[shared:]), net.layers(fork, own), axis=1)
    return net.model(net.head(both, head))


def quantised_with_side_head(seeds: Sequence[int], at: int, head: int) -> ir.Model:
    """A second output behind `at` of the layers."""
    net = Quantised()
    fork = net.layers(net.quantise("image"), seeds[:at])
    return net.model(net.head(net.layers(fork, seeds[at:]), head), net.head(fork, head + 1, "side"))
