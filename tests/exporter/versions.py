"""One network in the words of each opset: a convolution, what a test is about, a pooling and a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from contract.dtypes import Array

CHANNELS, CLASSES, SIZE = 8, 5, 8
_LEAST = 9  # opset: Upsample and Resize take their scales as an input since 9 and 10


@dataclass
class Writer:
    """Writes nodes and constants. Every value has a name by its number."""

    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, values: Array | Sequence[int]) -> str:
        array = np.asarray(values) if isinstance(values, np.ndarray) else np.array(values, np.int64)
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"{operator}{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names[0]


def weight(seed: int, *shape: int) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.3).astype(np.float32)


def network(kind: str, opset: int, head: int = 0) -> onnx.ModelProto:
    """float32 (batch, 3, 8, 8) -> float32 (batch, 5), with `kind` in the middle, as a file of `opset` says it."""
    write = Writer(opset)
    x = write.node("Conv", "image", write.constant(weight(1, CHANNELS, 3, 3, 3)), pads=[1, 1, 1, 1])
    x = KINDS[kind](write, x)
    x = write.node("Conv", x, write.constant(weight(2, CHANNELS, CHANNELS, 1, 1)))
    x = write.node("Flatten", write.node("GlobalAveragePool", x))
    x = write.node("Gemm", x, write.constant(weight(3, CHANNELS, CHANNELS)), write.constant(weight(4, CHANNELS)))
    write.nodes.append(helper.make_node("MatMul", [x, write.constant(weight(5 + head, CHANNELS, CLASSES))], ["logits"]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    graph = helper.make_graph(write.nodes, "g", [image], [logits], write.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _gelu(write: Writer, x: str) -> str:
    if write.opset >= 20:
        return write.node("Gelu", x)
    erf = write.node("Erf", write.node("Div", x, write.number(np.sqrt(2))))
    return write.node("Mul", x, write.node("Mul", write.number(0.5), write.node("Add", erf, write.number(1))))


def _gelu_by_tanh(write: Writer, x: str) -> str:
    if write.opset >= 20:
        return write.node("Gelu", x, approximate="tanh")
    cubed = write.node("Mul", write.number(0.044715), write.node("Pow", x, write.number(3)))
    tanh = write.node("Tanh", write.node("Mul", write.number(np.sqrt(2 / np.pi)), write.node("Add", x, cubed)))
    return write.node("Mul", x, write.node("Mul", write.number(0.5), write.node("Add", tanh, write.number(1))))


def _group_norm(write: Writer, x: str) -> str:
    scale, bias = weight(10, CHANNELS), weight(11, CHANNELS)
    if write.opset >= 21:
        return write.node("GroupNormalization", x, write.constant(scale), write.constant(bias), num_groups=2)
    split = write.node("Reshape", x, write.constant([0, 2, -1]))
    plain = [write.constant(np.full(2, value, np.float32)) for value in (1, 0)]
    even = write.node("Reshape", write.node("InstanceNormalization", split, *plain), write.node("Shape", x))
    factors = [write.constant(values.reshape(CHANNELS, 1, 1)) for values in (scale, bias)]
    return write.node("Add", write.node("Mul", even, factors[0]), factors[1])


def _layer_norm(write: Writer, x: str) -> str:
    return write.node("LayerNormalization", x, write.constant(weight(12, SIZE)), write.constant(weight(13, SIZE)), epsilon=1e-6)


def _batch_norm(write: Writer, x: str) -> str:
    parts = [weight(seed, CHANNELS) for seed in (14, 15, 16)] + [np.abs(weight(17, CHANNELS)) + 1]
    return write.node("BatchNormalization", x, *map(write.constant, parts))


def _resize(write: Writer, x: str) -> str:
    scales = write.constant(np.array([1, 1, 2, 2], np.float32))
    if write.opset < 11:
        return write.node("Upsample" if write.opset < 10 else "Resize", x, scales, mode="nearest")
    roi = write.constant(np.array([], np.float32)) if write.opset < 13 else ""
    modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return write.node("Resize", x, roi, scales, **modes)


def _resize_smoothly(write: Writer, x: str) -> str:
    scales = write.constant(np.array([1, 1, 2, 2], np.float32))
    if write.opset < 11:
        return write.node("Upsample" if write.opset < 10 else "Resize", x, scales, mode="linear")
    roi = write.constant(np.array([], np.float32)) if write.opset < 13 else ""
    return write.node("Resize", x, roi, scales, mode="linear", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def _resize_by_half_pixels(write: Writer, x: str) -> str:
    roi = write.constant(np.array([], np.float32)) if write.opset < 13 else ""
    return write.node("Resize", x, roi, write.constant(np.array([1, 1, 2, 2], np.float32)), mode="linear")


def _reduce(operator: str, since: int) -> Callable[[Writer, str], str]:
    def written(write: Writer, x: str) -> str:
        if write.opset < since:
            return write.node("Add", x, write.node(operator, x, axes=[2, 3], keepdims=1))
        return write.node("Add", x, write.node(operator, x, write.constant([2, 3]), keepdims=1))

    return written


def _squeeze(write: Writer, x: str) -> str:
    if write.opset < 13:
        return write.node("Squeeze", write.node("Sigmoid", write.node("Unsqueeze", x, axes=[1])), axes=[1])
    axes = write.constant([1])
    return write.node("Squeeze", write.node("Sigmoid", write.node("Unsqueeze", x, axes)), axes)


def _clip(write: Writer, x: str) -> str:
    if write.opset < 11:
        return write.node("Clip", x, min=-0.5, max=0.5)
    return write.node("Clip", x, write.number(-0.5), write.number(0.5))


def _pad(write: Writer, x: str) -> str:
    pads = [0, 0, 1, 1, 0, 0, 1, 1]
    return write.node("Pad", x, pads=pads) if write.opset < 11 else write.node("Pad", x, write.constant(pads))


def _split(write: Writer, x: str) -> str:
    sizes = [3, 5]
    if write.opset < 13:
        first = write.node("Split", x, outputs=2, axis=1, split=sizes)
    else:
        first = write.node("Split", x, write.constant(sizes), outputs=2, axis=1)
    return write.node("Concat", first.removesuffix("0") + "1", first, axis=1)


def _softmax(write: Writer, x: str) -> str:
    return write.node("Softmax", x, axis=-1 if write.opset >= 13 else 3)


def _dropout(write: Writer, x: str) -> str:
    return write.node("Relu", write.node("Dropout", x, **({"ratio": 0.3} if write.opset < 12 else {})))


def _pool(write: Writer, x: str) -> str:
    return write.node("MaxPool", write.node("AveragePool", x, kernel_shape=[3, 3]), kernel_shape=[2, 2], strides=[2, 2])


KINDS: dict[str, Callable[[Writer, str], str]] = {
    "Gelu": _gelu,
    "Gelu by tanh": _gelu_by_tanh,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
    "Resize": _resize,
    "Resize smoothly": _resize_smoothly,
    "Resize by half pixels": _resize_by_half_pixels,
    "ReduceMean": _reduce("ReduceMean", 18),
    "ReduceMax": _reduce("ReduceMax", 18),
    "ReduceSum": _reduce("ReduceSum", 13),
    "ReduceL2": _reduce("ReduceL2", 18),
    "Squeeze": _squeeze,
    "Clip": _clip,
    "Pad": _pad,
    "Split": _split,
    "Softmax": _softmax,
    "Dropout": _dropout,
    "pooling": _pool,
}
FIRST = {"LayerNormalization": 17, "Resize by half pixels": 11}


def opsets_of(kind: str) -> range:
    """The opsets that can say `kind` so."""
    return range(FIRST.get(kind, _LEAST), 22)
