"""A family of networks so small that what is measured is the server: built by hand, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx import ModelProto, TensorProto, helper, numpy_helper

from contract.preprocessing import Preprocessing
from contract.repository import Repository
from exporter.export import ExportOptions, export_repository
from exporter.sharing.choose import CutOptions
from exporter.sources.task_model import Sources, TaskModel

SIZE = 8  # pixels of the square image
_WIDTH = 16
_CLASSES = 4
# The seeds of each task's blocks; equal seeds are equal weights.
TASKS: Mapping[str, tuple[int, ...]] = {"probe": (1, 2, 3), "early": (11, 2, 3), "middle": (1, 12, 3), "late": (1, 2, 13)}
_BACKBONE = (1, 2, 3)
_HOW = Preprocessing(height=SIZE, width=SIZE)


def write_tiny_family(folder: Path, how: Preprocessing = _HOW) -> Repository:
    """Write four tasks on one backbone of three blocks as a repository: uint8 images of 8 x 8 pixels, or as `how` says, 4 classes each."""
    loaders = {name: partial(_task, blocks, head, how) for head, (name, blocks) in enumerate(TASKS.items())}
    sources = Sources(loaders, partial(_task, _BACKBONE, len(TASKS), how))
    return export_repository(sources, ExportOptions(folder, cuts=CutOptions("exact"))).repository


def write_tiny_forks(folder: Path, tasks: int) -> tuple[Repository, dict[str, Path]]:
    """Write `tasks` tasks that each tune the last block as a repository in `folder`; return it, and their whole networks as files."""
    loaders = {f"task-{number}": partial(_task, (1, 2, 20 + number), number, _HOW) for number in range(tasks)}
    files = {name: folder / f"{name}.onnx" for name in loaders}
    for name, load in loaders.items():
        ir.save(load().model, files[name])
    sources = Sources(loaders, partial(_task, _BACKBONE, tasks, _HOW))
    return export_repository(sources, ExportOptions(folder / "repository", cuts=CutOptions("exact"))).repository, files


def _task(blocks: Sequence[int], head: int, how: Preprocessing) -> TaskModel:
    labels = tuple(f"class {index}" for index in range(_CLASSES))
    return TaskModel(ir.from_proto(_network(blocks, head, how)), labels, how)


def _network(blocks: Sequence[int], head: int, how: Preprocessing) -> ModelProto:
    sizes = [how.height * how.width * 3, *[_WIDTH] * len(blocks), _CLASSES]
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["x0"]),
    ]
    weights = []
    for place, seed in enumerate((*blocks, 100 + head)):
        weight = np.random.default_rng(seed).normal(0, 1 / sizes[place], (sizes[place], sizes[place + 1])).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{place}"))
        last = place == len(blocks)
        nodes.append(helper.make_node("MatMul", [f"x{place}", f"w{place}"], ["logits" if last else f"y{place}"]))
        if not last:
            nodes.append(helper.make_node("Tanh", [f"y{place}"], [f"x{place + 1}"]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["rows", how.height, how.width, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", _CLASSES])
    graph = helper.make_graph(nodes, "tiny", [image], [logits], weights)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
