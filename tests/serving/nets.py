"""A small family of real networks: ONNX segments, the same arithmetic in numpy, and the repository they make.

image -> trunk -+-> mid ------+                +-> probe        (linear probe: all but the head is frozen)
                +-> tuned-a --+-> suffix (x3) -+-> colour       (one middle block tuned)
                +-> tuned-b --+                +-> parity       (the same, without labels)
                +-> branch-late                                 (everything after the trunk is its own)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from contract.preprocessing import Preprocessing
from contract.repository import Repository, Segment, Step, Task, TensorSpec, read_repository
from contract.repository.config import ALL_TASKS, LABELS_FILE, all_tasks_config, segment_config, task_config, to_text
from contract.repository.model import DIGEST_VERSION, SEGMENT_INPUT, SEGMENT_OUTPUT

PREPROCESSING = Preprocessing(height=8, width=8)
IMAGE = TensorSpec("image", "UINT8", (8, 8, 3))
PIXELS = 8 * 8 * 3
MAX_ROWS = 6


@dataclass(frozen=True)
class Layer:
    """y = tanh(x W + b), or x W + b for a head; the first layer takes uint8 images."""

    name: str
    sizes: tuple[int, int]
    block: int
    seed: int
    is_head: bool = False
    takes_image: bool = False

    @property
    def weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        random = np.random.default_rng(self.seed)
        return random.normal(0, 0.5, self.sizes).astype(np.float32), random.normal(0, 0.5, self.sizes[1]).astype(np.float32)

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        weight, bias = self.weights
        flat = x.reshape(len(x), -1).astype(np.float32) / np.float32(255 if self.takes_image else 1)
        y = flat @ weight + bias
        return y if self.is_head else np.tanh(y)

    def segment(self) -> Segment:
        spec = (IMAGE.dtype, IMAGE.shape) if self.takes_image else ("FP32", self.sizes[:1])
        return Segment(
            name=self.name,
            inputs=(TensorSpec(SEGMENT_INPUT, *spec),),
            outputs=(TensorSpec(SEGMENT_OUTPUT, "FP32", self.sizes[1:]),),
            blocks=(self.block, self.block),
            digest=f"{self.seed:064x}",
            max_batch_rows=MAX_ROWS,
            macs=self.sizes[0] * self.sizes[1],
            rows="independent",
        )

    def model(self) -> onnx.ModelProto:
        weight, bias = self.weights
        nodes = [
            helper.make_node("Cast", [SEGMENT_INPUT], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["floats", "scale"], ["scaled"]),
            helper.make_node("Reshape", ["scaled", "flat_shape"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight", "bias"], [SEGMENT_OUTPUT if self.is_head else "linear"]),
        ]
        if not self.is_head:
            nodes.append(helper.make_node("Tanh", ["linear"], [SEGMENT_OUTPUT]))
        initializers = {
            "scale": np.float32(255 if self.takes_image else 1),
            "flat_shape": np.array([-1, self.sizes[0]]),
            "weight": weight,
            "bias": bias,
        }
        dtype = TensorProto.UINT8 if self.takes_image else TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            self.name,
            [helper.make_tensor_value_info(SEGMENT_INPUT, dtype, ["rows", *self.segment().inputs[0].shape])],
            [helper.make_tensor_value_info(SEGMENT_OUTPUT, TensorProto.FLOAT, ["rows", self.sizes[1]])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()],
        )
        return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


LAYERS = {
    layer.name: layer
    for layer in (
        Layer("trunk", (PIXELS, 7), 0, seed=1, takes_image=True),
        Layer("mid", (7, 7), 1, seed=2),
        Layer("tuned-a", (7, 7), 1, seed=3),
        Layer("tuned-b", (7, 7), 1, seed=4),
        Layer("branch-late", (7, 4), 1, seed=5, is_head=True),
        Layer("suffix", (7, 5), 2, seed=6),
        Layer("head-probe", (5, 3), 3, seed=7, is_head=True),
        Layer("head-colour", (5, 3), 3, seed=8, is_head=True),
        Layer("head-parity", (5, 2), 3, seed=9, is_head=True),
    )
}
CHAINS = {
    "probe": ("trunk", "mid", "suffix", "head-probe"),
    "colour": ("trunk", "tuned-a", "suffix", "head-colour"),
    "parity": ("trunk", "tuned-b", "suffix", "head-parity"),
    "late": ("trunk", "branch-late"),
}
LABELS = {"probe": ("cat", "dog", "emu"), "colour": ("red", "green", "blue"), "late": ("n", "e", "s", "w")}
TASK_NAMES = tuple(CHAINS)


def whole(task: str, images: NDArray[np.uint8]) -> NDArray[Any]:
    """Return what the task's own network answers."""
    values: NDArray[Any] = images
    for name in CHAINS[task]:
        values = LAYERS[name](values)
    return values


def images(rows: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, *IMAGE.shape), dtype=np.uint8)


def make_task(name: str, preprocessing: Preprocessing | None = PREPROCESSING) -> Task:
    chain = CHAINS[name]
    taps = [IMAGE.name, *("tap-" + "-".join(chain[: end + 1]) for end in range(len(chain) - 1)), name]
    steps = tuple(Step(segment, (taps[place],), (taps[place + 1],)) for place, segment in enumerate(chain))
    output = TensorSpec(name, "FP32", LAYERS[chain[-1]].sizes[1:])
    labels = LABELS.get(name, ())
    return Task(name, steps, (IMAGE,), (output,), MAX_ROWS, labels, preprocessing, {"backbone": "nets"}, scores="logits")


def make_repository(path: Path = Path("nowhere"), preprocessing: dict[str, Preprocessing | None] | None = None) -> Repository:
    """Return the family as data; nothing is written."""
    tasks = {name: make_task(name, (preprocessing or {}).get(name, PREPROCESSING)) for name in CHAINS}
    return Repository(path, {name: layer.segment() for name, layer in LAYERS.items()}, tasks)


def write_repository(path: Path) -> Repository:
    """Write the family as a model repository."""
    for name, layer in LAYERS.items():
        folder = path / name / "1"
        folder.mkdir(parents=True)
        onnx.save(layer.model(), folder / "model.onnx")
        (path / name / "config.pbtxt").write_text(to_text(segment_config(layer.segment())))
    tasks = make_repository().tasks
    for name, config in {
        **{name: task_config(task) for name, task in tasks.items()},
        ALL_TASKS: all_tasks_config(tasks.values(), digest_version=DIGEST_VERSION),
    }.items():
        (path / name / "1").mkdir(parents=True)
        (path / name / "config.pbtxt").write_text(to_text(config))
    for name, labels in LABELS.items():
        for file in (path / name / LABELS_FILE, path / ALL_TASKS / f"{name}.{LABELS_FILE}"):
            file.write_text("".join(f"{label}\n" for label in labels))
    return read_repository(path)
