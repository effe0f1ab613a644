"""Tiny networks that take different things: an image, an image with metadata, tokens with and without types; as ONNX files on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.exporter.graphs import CHANNELS, Net

LENGTH, VOCABULARY, WIDTH = 5, 11, 6  # the length: of what tests send


def image(head: int) -> onnx.ModelProto:
    """An image, called `image`, to `logits`."""
    return Net(head=head).proto()


def image_with_age(head: int) -> onnx.ModelProto:
    """The same network with two numbers beside the image, which goes by another name there, at the head."""
    model = Net(head=head).proto()
    graph = model.graph
    flat = next(node for node in graph.node if node.op_type == "Flatten").output[0]
    end = next(node for node in graph.node if node.op_type == "Gemm")
    weight = np.random.default_rng(head).standard_normal((CHANNELS + 2, 3)).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(weight, "joint.weight"))
    graph.node.insert(len(graph.node) - 1, helper.make_node("Concat", [flat, "age"], ["joint"], axis=1))
    end.input[0], end.input[1] = "joint", "joint.weight"
    graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, ["batch", 2]))
    rename(model, {"image": "pixels", "logits": "risk:0"})
    return model


def tokens(head: int, types: bool) -> onnx.ModelProto:
    """Tokens of any length with a mask to `scores`, with or without `token_type_ids`."""
    random = np.random.default_rng(7)
    weights = {
        "table": random.standard_normal((VOCABULARY, WIDTH)),
        "kinds": random.standard_normal((2, WIDTH)),
        "inner": random.standard_normal((WIDTH, WIDTH)),
        "head": np.random.default_rng(head).standard_normal((WIDTH, 3)),
    }
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("MatMul", ["words", "inner"], ["product"]),
        helper.make_node("Tanh", ["product"], ["embedded"]),
    ]
    embedded = "embedded"
    if types:
        nodes.append(helper.make_node("Gather", ["kinds", "token_type_ids"], ["typed"]))
        nodes.append(helper.make_node("Add", [embedded, "typed"], ["summed"]))
        embedded = "summed"
    nodes += [
        helper.make_node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
        helper.make_node("Mul", [embedded, "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "head"], ["scores"]),
    ]
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    constants += [numpy_helper.from_array(np.array([axis]), name) for name, axis in (("last", 2), ("middle", 1))]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in names]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(nodes, "tokens", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Call inputs and outputs of `model` by other names."""
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        for tensors in (node.input, node.output):
            for index, name in enumerate(tensors):
                tensors[index] = names.get(name, name)


FAMILY: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "kind": lambda: image(20),
    "breed": lambda: image(21),
    "risk": lambda: image_with_age(22),
    "mood": lambda: tokens(23, types=False),
    "pair": lambda: tokens(24, types=True),
}


def save_family(folder: Path) -> dict[str, Path]:
    """Write the networks into `folder`, and return their files by task."""
    files = {name: folder / f"{name}.onnx" for name in FAMILY}
    for name, make in FAMILY.items():
        onnx.save(make(), files[name])
    return files
