"""Tiny tasks on one trunk, of which one bears int8, one only in its trunk, and one not at all; and rows to calibrate with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx_ir as ir
from onnx import ModelProto, ValueInfoProto, numpy_helper
from onnxruntime import InferenceSession

from contract.repository import Task
from exporter.precision.examples import Examples, PrecisionOptions, Rows
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.graphs import SIZE, Net

BACKBONE = Net(head=0)
LABELS = ("ant", "bee", "cat")
MAX_DROP = 0.1


def plain(seed: int = 1) -> ModelProto:
    """Its classes differ by that in which images differ most."""
    return _telling(Net(blocks=(1, 2, 3, 10 + seed), head=seed).proto())


def loud() -> ModelProto:
    """Of what its branch computes one channel is so large that nothing is left of the others in eight bits; the head looks past it."""
    model = Net(blocks=(1, 2, 3, 20), head=7).proto()
    for name in ("3.left", "3.right"):
        _change(model, name, lambda weight: weight * np.array([3000, 1, 1, 1], np.float32).reshape(4, 1, 1, 1))
    return _telling(model, past=1)


def fine() -> ModelProto:
    """It tells dark images apart, which are all alike in front of its branch in eight bits that have to do for bright ones, too."""
    return _telling(Net(blocks=(1, 2, 3, 30), head=8).proto(), on=dark(200, seed=3))


def _telling(model: ModelProto, past: int = 0, on: np.ndarray | None = None) -> ModelProto:
    """Let two classes be told apart by that in which features, but the `past` first ones, differ most; each is right as often."""
    features = _run(model, "flat", images(200, seed=3) if on is None else on)
    features[:, :past] = 0
    axis = np.linalg.svd(features - features.mean(axis=0))[2][0]
    middle = np.median(features @ axis)
    _change(model, "head.weight", lambda weight: np.stack([axis, -axis, 0 * axis], axis=1))
    _change(model, "head.bias", lambda bias: np.array([-middle, middle, -10 * abs(middle)]))
    return model


def _run(model: ModelProto, name: str, given: np.ndarray) -> np.ndarray:
    asked = ModelProto()
    asked.CopyFrom(model)
    asked.graph.output.append(ValueInfoProto(name=name))
    session = InferenceSession(asked.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([name], {"image": given})[0])


def _change(model: ModelProto, name: str, how: Callable[[np.ndarray], np.ndarray]) -> None:
    weight = next(weight for weight in model.graph.initializer if weight.name == name)
    weight.CopyFrom(numpy_helper.from_array(how(numpy_helper.to_array(weight)).astype(np.float32), name))


def sources(**tasks: ModelProto) -> Sources:
    loaders = {name: (lambda model=model: TaskModel(ir.from_proto(model), LABELS)) for name, model in tasks.items()}
    return Sources(loaders, lambda: TaskModel(BACKBONE.model()))


def images(number: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, (number, 1, 1, 3)) + rng.normal(0, 40, (number, SIZE, SIZE, 3))
    return np.clip(grey, 0, 255).astype(np.uint8)


def dark(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (number, SIZE, SIZE, 3), dtype=np.uint8)


@cache
def rows(of: str = "bright") -> Rows:
    return Rows(f"{of} images", images(24), images(200, seed=1) if of == "bright" else dark(200, seed=1))


def unlabelled(task: Task) -> Examples:
    what = rows("dark" if task.name == "fine" else "bright")
    return Examples(what, unlabelled="nobody knows what they show", remarks=("24 rows, and 200 others.",))


def in_int8(max_drop: float = MAX_DROP) -> PrecisionOptions:
    return PrecisionOptions("int8", unlabelled, max_drop)
