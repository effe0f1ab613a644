"""Models as people put them into a Triton repository by hand: tiny ONNX files, with a config.pbtxt of their own or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

Shape = Sequence[int | str]


def onnx_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    dtype: int = TensorProto.FLOAT,
    gives: int | None = None,
) -> onnx.ModelProto:
    """dtype: of all inputs, and of all outputs unless `gives` says otherwise."""
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, dtype if gives is None else gives, shape) for name, shape in outputs.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_model(folder: Path, model: onnx.ModelProto | bytes, config: str | None = None, file: str = "1/model.onnx") -> None:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    if config is not None:
        (folder / "config.pbtxt").write_text(config)


def config_of(dtype: str, max_batch_size: int = 8, more: str = "", dims: int = 16) -> str:
    """The configuration of `add_sub` as NVIDIA's examples write it."""
    tensors = "".join(
        f'{word} [ {{ name: "{word.upper()}{index}" data_type: TYPE_{dtype} dims: [ {dims} ] }} ]\n'
        for word in ("input", "output")
        for index in (0, 1)
    )
    return f'platform: "onnxruntime_onnx"\nmax_batch_size: {max_batch_size}\n{tensors}{more}'


def add_sub(dtype: int = TensorProto.INT32, shape: Shape = ("N", 16)) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    return onnx_model(nodes, {"INPUT0": shape, "INPUT1": shape}, {"OUTPUT0": shape, "OUTPUT1": shape}, dtype)


def add_sub_of_strings() -> onnx.ModelProto:
    nodes = [helper.make_node("Cast", [f"INPUT{index}"], [f"number{index}"], to=TensorProto.INT32) for index in (0, 1)]
    nodes += [helper.make_node(kind, ["number0", "number1"], [kind]) for kind in ("Add", "Sub")]
    nodes += [
        helper.make_node("Cast", [kind], [f"OUTPUT{index}"], to=TensorProto.STRING) for index, kind in enumerate(("Add", "Sub"))
    ]
    return onnx_model(
        nodes,
        dict.fromkeys(("INPUT0", "INPUT1"), ("N", 16)),
        dict.fromkeys(("OUTPUT0", "OUTPUT1"), ("N", 16)),
        TensorProto.STRING,
    )


def identity(shape: Shape = ("N", 3), dtype: int = TensorProto.FLOAT, factor: int = 1) -> onnx.ModelProto:
    """y = factor * x, by additions."""
    nodes = [helper.make_node("Sum" if factor > 1 else "Identity", ["x"] * factor, ["y"])]
    return onnx_model(nodes, {"x": shape}, {"y": shape}, dtype)


def matmul() -> onnx.ModelProto:
    """Two inputs whose first axes differ, and none of which is that of rows; any size in between."""
    return onnx_model([helper.make_node("MatMul", ["a", "b"], ["c"])], {"a": (2, "k"), "b": ("k", 3)}, {"c": (2, 3)})


def ranking() -> onnx.ModelProto:
    """Scores, and the best of each row as one number, without an axis of its own."""
    nodes = [helper.make_node("Identity", ["x"], ["scores"]), helper.make_node("ArgMax", ["x"], ["best"], axis=1, keepdims=0)]
    model = onnx_model(nodes, {"x": ("N", 3)}, {"scores": ("N", 3), "best": ("N",)})
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    return model


def scaled(weights: str) -> onnx.ModelProto:
    """y = w * x, with the three weights in the file `weights` beside the model."""
    model = onnx_model([helper.make_node("Mul", ["x", "w"], ["y"])], {"x": ("N", 3)}, {"y": ("N", 3)})
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": weights, "offset": "0", "length": "12"}.items():
        tensor.external_data.add(key=key, value=value)
    return model
