"""Small dense networks with any wiring, as ONNX: several inputs, several outputs, ways that part and meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

WIDTH = 6


@dataclass
class Wired:
    """Layers tanh(x W) of one width; equal seeds, equal weights. Tensors are called by their names."""

    inputs: dict[str, int] = field(default_factory=lambda: {"image": WIDTH})
    prefix: str = ""
    _nodes: list = field(default_factory=list)
    _weights: list = field(default_factory=list)
    _sizes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sizes = dict(self.inputs)

    def _name(self, name: str) -> str:
        return name if name in self.inputs else self.prefix + name

    def layer(self, source: str, name: str, seed: int, size: int = WIDTH) -> str:
        inner = self._sizes[source]
        weight = np.random.default_rng(seed).standard_normal((inner, size)).astype(np.float32)
        self._weights.append(numpy_helper.from_array(weight, f"{self.prefix}{name}.weight"))
        self._node("MatMul", [source], name + ".product", size, extra=[f"{self.prefix}{name}.weight"])
        return self._node("Tanh", [name + ".product"], name, size)

    def clip(self, source: str, name: str) -> str:
        """A ReLU6 with constant limits, as torch exports it: a block of its own, equal wherever it occurs."""
        limits = [f"{self.prefix}{name}.low", f"{self.prefix}{name}.high"]
        self._weights += [numpy_helper.from_array(np.float32(value), limit) for value, limit in zip((0, 6), limits, strict=True)]
        return self._node("Clip", [source], name, self._sizes[source], extra=limits)

    def layers(self, source: str, seeds: dict[str, int]) -> str:
        for name, seed in seeds.items():
            source = self.layer(source, name, seed)
        return source

    def concat(self, sources: list[str], name: str) -> str:
        return self._node("Concat", sources, name, sum(self._sizes[source] for source in sources), axis=1)

    def add(self, left: str, right: str, name: str) -> str:
        return self._node("Add", [left, right], name, self._sizes[left])

    def _node(self, op: str, sources: list[str], name: str, size: int, extra: list[str] | None = None, **attributes: int) -> str:
        inputs = [*map(self._name, sources), *(extra or [])]
        self._nodes.append(helper.make_node(op, inputs, [self._name(name)], name=f"node {self.prefix}{name}", **attributes))
        self._sizes[name] = size
        return name

    def model(self, *outputs: str) -> ir.Model:
        def info(name: str) -> object:
            return helper.make_tensor_value_info(self._name(name), TensorProto.FLOAT, ["batch", self._sizes[name]])

        graph = helper.make_graph(self._nodes, "wired", list(map(info, self.inputs)), list(map(info, outputs)), self._weights)
        return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


FROZEN = {"b1": 1, "b2": 2, "b3": 3, "b4": 4}


def plain(seeds: dict[str, int], head: int, classes: int = 3) -> ir.Model:
    net = Wired()
    net.layer(net.layers("image", seeds), "logits", head, classes)
    return net.model("logits")


def clipped(seeds: Sequence[int], widths: Sequence[int], head: int) -> ir.Model:
    """Layers of different widths, the same activation after each: one digest, several shapes."""
    net = Wired()
    source = "image"
    for index, (seed, width) in enumerate(zip(seeds, widths, strict=True)):
        source = net.clip(net.layer(source, f"b{index}", seed, width), f"b{index}.clip")
    net.layer(source, "logits", head, 3)
    return net.model("logits")


def siamese(tuned: dict[str, int], head: int, fork: str = "b2", prefix: str = "") -> ir.Model:
    """The frozen blocks and, from `fork` on, tuned ones beside them; the head takes both features."""
    net = Wired(prefix=prefix)
    frozen = net.layers("image", FROZEN)
    own = net.layers(fork, {f"own.{name}": seed for name, seed in tuned.items()})
    net.layer(net.concat([frozen, own], "both"), "logits", head, 3)
    return net.model("logits")


def with_embedding(head: int) -> ir.Model:
    """Two outputs: the features, which also go on to the head, and the logits."""
    net = Wired()
    net.layer(net.layers("image", FROZEN), "logits", head, 3)
    return net.model("logits", "b4")


def with_side_head(head: int) -> ir.Model:
    """A second output that branches off in the middle."""
    net = Wired()
    net.layer(net.layers("image", FROZEN), "logits", head, 3)
    net.layer("b2", "side", head + 100, 2)
    return net.model("side", "logits")


def with_metadata(head: int) -> ir.Model:
    """Two inputs, of which the small one joins at the head."""
    net = Wired({"image": WIDTH, "age": 2})
    features = net.layers("image", FROZEN)
    net.layer(net.concat([features, net.layer("age", "age.hidden", 50, 4)], "both"), "logits", head, 3)
    return net.model("logits")


def with_joint_end(head: int) -> ir.Model:
    """Two outputs that take the same tensor from inside the last block, which is no tap: they cannot be told apart."""
    net = Wired()
    features = net.layers("image", FROZEN)
    left, right = net.layer(features, "left", head, 4), net.layer(features, "right", head + 1, 4)
    net.layer(net.add(left, right, "sum"), "logits", head + 2, 3)
    net.layer(left, "boxes", head + 3, 4)
    return net.model("logits", "boxes")


def with_numbers(head: int) -> ir.Model:
    """One number per row goes in beside the image, and one comes out beside the logits."""
    model = with_metadata(head)
    graph = model.graph
    axes = ir.Value(name="axes", const_value=ir.tensor(np.array([1], np.int64), name="axes"))
    graph.register_initializer(axes)
    site = ir.Value(name="site", shape=ir.Shape(["batch"]), type=ir.TensorType(ir.DataType.FLOAT))
    column, total = ir.node("Unsqueeze", [site, axes]), ir.node("ReduceSum", [graph.outputs[0], axes], {"keepdims": 0})
    shifted = ir.node("Add", [graph.outputs[0], column.outputs[0]])
    graph.inputs.append(site)
    graph.extend([column, shifted, total])
    for value, name, shape in ((shifted.outputs[0], "shifted", ["batch", 3]), (total.outputs[0], "total", ["batch"])):
        value.name, value.shape, value.type = name, ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    column.outputs[0].name = "column"
    graph.outputs[:] = [shifted.outputs[0], total.outputs[0]]
    return model
