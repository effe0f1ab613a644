"""Tiny networks of others that take images as floats: the mean of each channel, or a map of them, behind whatever comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 8
Step = tuple[str, Sequence[float]]  # an operator, and its constant for each channel


def image_net(
    first: Sequence[Step] = (),
    *,
    sizes: Sequence[int | str] = ("rows", 3, SIDE, SIDE),
    dtype: int = TensorProto.FLOAT,
    metadata: Mapping[str, str] | None = None,
    gives_map: bool = False,
) -> onnx.ModelProto:
    """Return a network that takes an image of `sizes` and does `first` with it; channels are last where `sizes` say so."""
    nodes, weights, value = list[onnx.NodeProto](), list[onnx.TensorProto](), "picture"

    def then(operator: str, *more: str, **attributes: object) -> None:
        nonlocal value
        nodes.append(helper.make_node(operator, [value, *more], [f"{len(nodes)}"], **attributes))
        value = f"{len(nodes) - 1}"

    def constant(name: str, array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(array, name))
        return name

    if sizes[3] == 3:
        then("Transpose", perm=[0, 3, 1, 2])
    if dtype != TensorProto.FLOAT:
        then("Cast", to=TensorProto.FLOAT)
    for number, (operator, values) in enumerate(first):
        then(operator, constant(f"c{number}", np.array(values, np.float32).reshape(-1, 1, 1)))
    turned = np.eye(3, dtype=np.float32)[:, :, None, None]
    then("Conv", constant("turned", turned))
    if not gives_map:
        then("GlobalAveragePool")
        then("Flatten")
    given = ["rows", 3, *(sizes[1:3] if sizes[3] == 3 else sizes[2:])] if gives_map else ["rows", 3]
    nodes[-1].output[0] = "y"
    image = helper.make_tensor_value_info("picture", dtype, list(sizes))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, given)
    graph = helper.make_graph(nodes, "net", [image], [output], weights)
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    helper.set_model_props(made, dict(metadata or {}))
    return made


def save(folder: Path, name: str, model: onnx.ModelProto) -> Path:
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / f"{name}.onnx")
    return folder / f"{name}.onnx"
