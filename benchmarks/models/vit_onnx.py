"""A vision transformer as ONNX, built by hand with random weights: a large model for measuring, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class VitSize:
    """The sizes of a transformer; the default is ViT-Base/16 at 224 pixels: 86 million weights, 346 MB."""

    depth: int = 12
    width: int = 768
    heads: int = 12
    patch: int = 16
    image: int = 224
    classes: int = 1000

    @property
    def tokens(self) -> int:
        """Return the number of patches."""
        return (self.image // self.patch) ** 2


def write_vit(path: Path, size: VitSize | None = None, seed: int = 0) -> Path:
    """Write a transformer with mean pooling, float32 (batch, 3, image, image) to (batch, classes), to `path`."""
    size = size or VitSize()
    build = _Build(np.random.default_rng(seed))
    x = build.patches(size)
    for index in range(size.depth):
        x = build.attention(x, f"blocks.{index}", size)
        x = build.mlp(x, f"blocks.{index}", size.width)
    x = build.node("ReduceMean", [build.norm(x, "norm", size.width), build.integers("axis", [1])], keepdims=0)
    build.node("Gemm", [x, *build.weights("head", (size.width, size.classes))], "logits")
    onnx.save(build.model(size), path)
    return path


@dataclass
class _Build:
    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def node(self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        name = output or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, name: str, array: np.ndarray[Any, Any]) -> str:
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, name: str, values: Sequence[int]) -> str:
        return self.constant(name, np.array(values, np.int64))

    def weights(self, name: str, shape: tuple[int, ...], outputs: int | None = None) -> list[str]:
        weight = self.rng.standard_normal(shape, np.float32) * np.float32(0.02)
        bias = self.rng.standard_normal(outputs or shape[-1], np.float32) * np.float32(0.02)
        return [self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]

    def linear(self, x: str, name: str, inner: int, outer: int) -> str:
        weight, bias = self.weights(name, (inner, outer))
        return self.node("Add", [self.node("MatMul", [x, weight]), bias])

    def norm(self, x: str, name: str, width: int) -> str:
        return self.node("LayerNormalization", [x, *self.weights(name, (width,))], axis=-1)

    def patches(self, size: VitSize) -> str:
        kernel = self.weights("patch_embed", (size.width, 3, size.patch, size.patch), size.width)
        x = self.node("Conv", ["image", *kernel], strides=[size.patch, size.patch])
        x = self.node("Reshape", [x, self.integers("patch_embed.shape", [0, size.width, size.tokens])])
        x = self.node("Transpose", [x], perm=[0, 2, 1])
        position = self.rng.standard_normal((1, size.tokens, size.width), np.float32) * np.float32(0.02)
        return self.node("Add", [x, self.constant("pos_embed", position)])

    def attention(self, x: str, name: str, size: VitSize) -> str:
        width, heads = size.width, size.heads
        qkv = self.linear(self.norm(x, f"{name}.norm1", width), f"{name}.attn.qkv", width, 3 * width)
        split = self.integers(f"{name}.attn.split", [0, 0, 3, heads, width // heads])
        qkv = self.node("Transpose", [self.node("Reshape", [qkv, split])], perm=[2, 0, 3, 1, 4])
        query, key, value = (
            self.node("Gather", [qkv, self.constant(f"{name}.attn.{i}", np.array(i, np.int64))], axis=0) for i in range(3)
        )
        scores = self.node("MatMul", [query, self.node("Transpose", [key], perm=[0, 1, 3, 2])])
        scale = self.constant(f"{name}.attn.scale", np.array((width // heads) ** -0.5, np.float32))
        mixed = self.node("MatMul", [self.node("Softmax", [self.node("Mul", [scores, scale])], axis=-1), value])
        merge = self.integers(f"{name}.attn.merge", [0, 0, width])
        merged = self.node("Reshape", [self.node("Transpose", [mixed], perm=[0, 2, 1, 3]), merge])
        return self.node("Add", [x, self.linear(merged, f"{name}.attn.proj", width, width)])

    def mlp(self, x: str, name: str, width: int) -> str:
        hidden = self.linear(self.norm(x, f"{name}.norm2", width), f"{name}.mlp.fc1", width, 4 * width)
        gelu = self.node("Gelu", [hidden])
        return self.node("Add", [x, self.linear(gelu, f"{name}.mlp.fc2", 4 * width, width)])

    def model(self, size: VitSize) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size.image, size.image])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", size.classes])
        graph = helper.make_graph(self.nodes, "vit", [image], [logits], self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
