"""One repository with a task of each kind, of images and of texts, and all ways of asking a server about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

import espalier
from contract.repository import Repository, read_repository
from exporter.sources.references import InputOptions
from tests import words
from tests.kinds_nets import SIZE

LABELS = ("O", "B-animal", "B-deed", "I-deed")
CLASS_OF = {"cat": 1, "dog": 1, "sat": 2, "ran": 2, "far": 3}  # of words; of others O
TEXT = "The cat ran far"
RED = (10, 30, 30, 50)
# By task: its network in tests.kinds_nets, and the kind that it is given; None: nobody says one.
IMAGES: dict[str, tuple[str, str | None]] = {
    "classes": ("means", None),
    "labels": ("marks", "labels"),
    "values": ("means", "values:units=%"),
    "embedding": ("means", "embedding:normalized=true"),
    "mask": ("segments", "mask"),
    "yolo": ("yolo", "boxes:layout=yolo"),
    "detr": ("detr", "boxes:layout=detr"),
    "torchvision": ("torchvision", "boxes"),
    "tensor": ("segments", None),
}
TEXTS = {"tokens": "tokens", "mood": "classes", "meaning": "embedding"}
KINDS = {
    **{task: kind.partition(":")[0] for task, (_, kind) in IMAGES.items() if kind},
    "classes": "classes",
    "tensor": "tensor",
    **TEXTS,
}


def write_kinds(folder: Path) -> Repository:
    """Export a task of each kind into `folder`/repo."""
    repo, inputs = folder / "repo", InputOptions("in-graph", SIZE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    given = {task: kind for task, (_, kind) in IMAGES.items() if kind}
    espalier.export({task: f"tests.kinds_nets:{net}" for task, (net, _) in IMAGES.items()}, repo, inputs=inputs, kinds=given)
    files = {task: _write_text_network(folder, task) for task in TEXTS}
    (folder / "tokens.labels.txt").write_text("\n".join(LABELS))
    espalier.add(repo, files, tokenizer=words.save(folder), kinds=TEXTS)
    return read_repository(repo)


def _write_text_network(folder: Path, task: str) -> Path:
    """Write a network that looks each word up: what it is, for each; or the mean of that over all."""
    table = np.full((len(words.SPECIAL) + len(words.WORDS), len(LABELS)), -4, np.float32)
    for number, word in enumerate((*words.SPECIAL, *words.WORDS)):
        table[number, CLASS_OF.get(word, 0)] = 4
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["words"])]
    sizes: list[str | int] = ["rows", "length", len(LABELS)]
    if task != "tokens":
        nodes.append(helper.make_node("ReduceMean", ["words", "axes"], ["mean"], keepdims=0))
        sizes.remove("length")
    weights = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axes")]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "length"])
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, sizes)
    graph = helper.make_graph(nodes, task, [ids], [output], weights[: len(nodes)])
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]), folder / f"{task}.onnx")
    return folder / f"{task}.onnx"


def write_picture(folder: Path) -> Path:
    """Write a high picture, of which the crop cuts off a sixth above and below, with a red rectangle."""
    image = Image.new("RGB", (60, 90))
    ImageDraw.Draw(image).rectangle([RED[0], RED[1], RED[2] - 1, RED[3] - 1], fill="red")
    image.save(folder / "picture.png")
    return folder / "picture.png"


def rows_of(repository: Repository, task: str, picture: Path) -> dict[str, Any]:
    """Return what the network of `task` takes about the picture, or the text."""
    spec, how = repository.tasks[task].inputs[0], repository.tasks[task].preprocessing
    if how is not None:
        return {spec.name: how(Image.open(picture))[None]}
    return {spec.name: np.array([words.tokenizer().encode(TEXT).ids])}
