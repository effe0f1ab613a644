"""A trunk and any number of heads behind it, of several forms: ONNX segments, the same arithmetic in numpy, and their repository."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from contract.repository import Repository, Segment, Step, Task, TensorSpec
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT
from tests.serving.nets import IMAGE, LAYERS, MAX_ROWS, Layer, images

TRUNK = LAYERS["trunk"]
WIDTH = TRUNK.sizes[1]
TAP = "tap-trunk"
FORMS = ("gemm", "gemm-transposed", "gemm-no-bias", "matmul", "matmul-add", "layers")


@dataclass(frozen=True)
class Head:
    """classes: of its output. form: what its graph is; "layers" is no linear layer. opset: of its file."""

    name: str
    classes: int = 3
    form: str = "gemm-transposed"
    opset: int = 18

    @property
    def layer(self) -> Layer:
        return Layer(self.name, (WIDTH, self.classes), 1, seed=sum(self.name.encode()) + 1000 * self.classes, is_head=True)

    def __call__(self, tap: NDArray[Any]) -> NDArray[Any]:
        weight, bias = self.layer.weights
        y = tap @ weight + (0 if self.form in ("gemm-no-bias", "matmul") else bias)
        return np.maximum(y, 0) if self.form == "layers" else y

    def segment(self) -> Segment:
        weight, bias = self.layer.weights
        return replace(self.layer.segment(), weight_bytes=weight.nbytes + bias.nbytes)

    def model(self) -> onnx.ModelProto:
        weight, bias = self.layer.weights
        flipped = self.form == "gemm-transposed"
        named = [SEGMENT_INPUT, "weight", "bias"]
        gemm = helper.make_node("Gemm", named[: 2 if self.form == "gemm-no-bias" else 3], [SEGMENT_OUTPUT], transB=int(flipped))
        product = helper.make_node("MatMul", named[:2], ["product"])
        nodes = {
            "matmul": [helper.make_node("MatMul", named[:2], [SEGMENT_OUTPUT])],
            "matmul-add": [product, helper.make_node("Add", ["bias", "product"], [SEGMENT_OUTPUT])],
            "layers": [
                product,
                helper.make_node("Add", ["product", "bias"], ["sum"]),
                helper.make_node("Relu", ["sum"], [SEGMENT_OUTPUT]),
            ],
        }.get(self.form, [gemm])
        weights = {"weight": np.ascontiguousarray(weight.T) if flipped else weight, "bias": bias}
        taken = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            self.name,
            [helper.make_tensor_value_info(SEGMENT_INPUT, TensorProto.FLOAT, ["rows", WIDTH])],
            [helper.make_tensor_value_info(SEGMENT_OUTPUT, TensorProto.FLOAT, ["rows", self.classes])],
            [numpy_helper.from_array(values, name) for name, values in weights.items() if name in taken],
        )
        return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", self.opset)])


def whole(head: Head, rows: int, seed: int = 0) -> NDArray[Any]:
    """Return what the task of `head` answers."""
    return head(TRUNK(images(rows, seed)))


def write_heads(path: Path, heads: Sequence[Head]) -> Repository:
    """Write the models of the trunk and of `heads`, and return what they are."""
    for name, model in {TRUNK.name: TRUNK.model(), **{head.name: head.model() for head in heads}}.items():
        (path / name / "1").mkdir(parents=True)
        onnx.save(model, path / name / "1" / "model.onnx")
    return with_heads(Repository(path, {TRUNK.name: TRUNK.segment()}, {}), heads)


def with_heads(repository: Repository, heads: Iterable[Head]) -> Repository:
    """Return `repository` with the tasks of these heads and no other."""
    heads = list(heads)
    segments = {TRUNK.name: TRUNK.segment(), **{head.name: head.segment() for head in heads}}
    return replace(repository, segments=segments, tasks={f"task-{head.name}": _task(head) for head in heads})


def _task(head: Head) -> Task:
    name = f"task-{head.name}"
    steps = (Step(TRUNK.name, (IMAGE.name,), (TAP,)), Step(head.name, (TAP,), (name,)))
    return Task(name, steps, (IMAGE,), (TensorSpec(name, "FP32", (head.classes,)),), MAX_ROWS, (), None, {})
