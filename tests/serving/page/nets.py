"""A repository with a task of each kind, on one trunk: tiny networks whose answers are known from the picture, or from the text.

image -> see (RGB from 0 to 1) -+-> animal, marks, size (the mean or the largest of each colour)
                                +-> vector, areas (the strongest colour of each pixel), things (two boxes, always), plain (a tensor)
input_ids -> names (cat and dog are animals)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from contract.kinds.boxes import Boxes
from contract.kinds.embedding import Embedding
from contract.kinds.kind import Kind
from contract.kinds.labels import Labels
from contract.kinds.mask import Mask
from contract.kinds.tokens import Tokens
from contract.kinds.values import Values
from contract.preprocessing import Preprocessing
from contract.repository import Canary, Repository, Segment, Step, Task, TensorSpec
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT
from contract.repository.write import model_path, write_configs
from contract.text import TextInput, Tokenizer
from tests import words

SIZE, WIDTH, LENGTH = 16, 12, 16
IMAGE = TensorSpec("image", "UINT8", (SIZE, SIZE, 3))
IDS = TensorSpec("input_ids", "INT64", (LENGTH,))
COLOURS = ("red", "green", "blue")
KINDS: Mapping[str, Kind | None] = {
    "animal": None,
    "marks": Labels(thresholds=(0.5, 0.3, 0.9)),
    "size": Values(units=("%",)),
    "vector": Embedding(normalized=True),
    "areas": Mask(),
    "things": Boxes(layout="yolo"),
    "plain": None,
    "names": Tokens(),
}
LABELS = {
    "animal": ("cat", "dog", "emu"),
    "marks": COLOURS,
    "size": COLOURS,
    "areas": ("background", *COLOURS),
    "things": ("ship", "gull"),
    "names": ("O", "B-ANIMAL"),
}
SHAPES: Mapping[str, tuple[int, ...]] = {
    "see": (3, SIZE, SIZE),
    "animal": (3,),
    "marks": (3,),
    "size": (3,),
    "vector": (WIDTH,),
    "areas": (4, SIZE, SIZE),
    "things": (6, 2),
    "plain": (3, SIZE, SIZE),
    "names": (LENGTH, 2),
}
MACS = {"see": 40_000, "vector": 9_216, "areas": 3_072}
_ANIMALS = [len(words.SPECIAL) + words.WORDS.index(word) for word in ("cat", "dog")]
_TABLE = np.array([[-3, 3] if index in _ANIMALS else [3, -3] for index in range(len(words.SPECIAL) + len(words.WORDS))])
# Of each pixel: nothing, then how strong each colour is beside the others.
_BESIDE = np.array([[0, 0, 0], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)[:, :, None, None]
_BOXES = np.array([[4, 11], [5, 12], [6, 8], [8, 6], [0.9, 0.05], [0.1, 0.6]], np.float32)  # x, y, width, height, two classes
_WEIGHTS: Mapping[str, Any] = {
    "255": np.float32(255),
    "places": np.array([2, 3]),
    "ten": np.float32(10),
    "half": np.float32(0.5),
    "flat": np.array([-1, 3 * SIZE * SIZE]),
    "vectors": np.random.default_rng(5).normal(0, 0.1, (3 * SIZE * SIZE, WIDTH)).astype(np.float32),
    "beside": _BESIDE,
    "least": np.array([0.3, 0, 0, 0], np.float32),
    "nothing": np.zeros((3, 12), np.float32),
    "boxes": _BOXES.ravel(),
    "as boxes": np.array([-1, 6, 2]),
    "table": _TABLE.astype(np.float32),
}


def write_repository(folder: Path, *without: str) -> Repository:
    """Write the family into `folder`, `without` some tasks. `size` has a canary, which is the same network again."""
    segments = {
        name: _segment(name)
        for name in ("see", *(f"to-{task}" for task in KINDS), "to-size-2")
        if name.removeprefix("to-") not in without
    }
    for name, segment in segments.items():
        onnx.save(_model(segment), model_path(folder, name))
    tasks = {name: _task(name) for name in KINDS if name not in without}
    if "size" in tasks:
        size = tasks["size"]
        steps = (size.steps[0], replace(size.steps[1], segment="to-size-2"))
        tasks["size"] = replace(size, canary=Canary(replace(size, steps=steps, version="2"), 0.25))
    tokenizer = words.tokenizer().to_str().encode()
    return write_configs(folder, segments, tasks, tokenizers={Tokenizer(tokenizer).sha256: tokenizer})


def _task(name: str) -> Task:
    output = TensorSpec(name, "FP32", SHAPES[name])
    about = {"labels": LABELS.get(name, ()), "kind": KINDS[name], "scores": "logits" if len(output.shape) == 1 else ""}
    if name == "names":
        text = TextInput(Tokenizer(words.tokenizer().to_str().encode()).sha256, IDS.name, least=LENGTH, most=LENGTH)
        return Task(name, (Step("to-names", (IDS.name,), (name,)),), (IDS,), (output,), 8, **about, text=text)
    steps = Step("see", (IMAGE.name,), ("seen",)), Step(f"to-{name}", ("seen",), (name,))
    return Task(name, steps, (IMAGE,), (output,), 8, **about, preprocessing=Preprocessing(height=SIZE, width=SIZE))


def _segment(name: str) -> Segment:
    kind = _kind_of(name)
    takes = {"see": IMAGE, "names": IDS}.get(kind, TensorSpec("", "FP32", SHAPES["see"]))
    block, digest = int(name != "see"), f"{sum(map(ord, name)):064x}"
    inputs, outputs = (replace(takes, name=SEGMENT_INPUT),), (TensorSpec(SEGMENT_OUTPUT, "FP32", SHAPES[kind]),)
    return Segment(name, inputs, outputs, (block, block), digest, 8, macs=MACS.get(kind, 1_536), rows="independent")


def _kind_of(segment: str) -> str:
    return segment.removeprefix("to-").removesuffix("-2")


def _model(segment: Segment) -> onnx.ModelProto:
    nodes = _nodes(_kind_of(segment.name))
    used = {name for node in nodes for name in node.input}
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in _WEIGHTS.items() if name in used]
    types = {"UINT8": TensorProto.UINT8, "INT64": TensorProto.INT64, "FP32": TensorProto.FLOAT}
    inputs, outputs = (
        [helper.make_tensor_value_info(spec.name, types[spec.dtype], ["rows", *spec.shape]) for spec in specs]
        for specs in (segment.inputs, segment.outputs)
    )
    graph = helper.make_graph(nodes, segment.name, inputs, outputs, weights)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


def _nodes(kind: str) -> list[onnx.NodeProto]:
    """Return the operators from "input" to "output"."""
    node, first, last = helper.make_node, SEGMENT_INPUT, SEGMENT_OUTPUT
    mean = node("ReduceMean", [first, "places"], ["mean"], keepdims=0)
    return {
        "see": [
            node("Cast", [first], ["floats"], to=TensorProto.FLOAT),
            node("Div", ["floats", "255"], ["small"]),
            node("Transpose", ["small"], [last], perm=[0, 3, 1, 2]),
        ],
        "animal": [mean, node("Mul", ["mean", "ten"], [last])],
        "marks": [
            node("ReduceMax", [first, "places"], ["most"], keepdims=0),
            node("Sub", ["most", "half"], ["more"]),
            node("Mul", ["more", "ten"], [last]),
        ],
        "size": [mean, node("Mul", ["mean", "ten"], [last])],
        "vector": [node("Reshape", [first, "flat"], ["row"]), node("MatMul", ["row", "vectors"], [last])],
        "areas": [node("Conv", [first, "beside", "least"], [last])],
        "things": [
            mean,
            node("MatMul", ["mean", "nothing"], ["zeros"]),
            node("Add", ["zeros", "boxes"], ["row"]),
            node("Reshape", ["row", "as boxes"], [last]),
        ],
        "plain": [node("Sub", [first, "half"], [last])],
        "names": [node("Gather", ["table", first], [last])],
    }[kind]
