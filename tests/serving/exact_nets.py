"""Tasks whose answers are whole numbers below 2^24: the same bits on any machine, whatever rows they were computed together with.

image -> trunk -+-> head-NAME-SEED     (the task NAME; another seed is another version)
                +-> ...
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from contract.repository import Repository, Segment, Step, Task, TensorSpec, read_repository
from contract.repository.config import parse_text, segment_config, task_config, to_text
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT
from tests.serving.nets import IMAGE, MAX_ROWS, PIXELS

FEATURES, CLASSES = 6, 3
TRUNK = "trunk"
_TRUNK_SEED = 1


def head(name: str, seed: int) -> str:
    """Return the name of the segment that is the head of the task `name`."""
    return f"head-{name}-{seed}"


def answer(seed: int, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what a task with this seed answers, of shape (rows, CLASSES)."""
    features = images.reshape(len(images), -1).astype(np.int64) @ _weight(_TRUNK_SEED, PIXELS, FEATURES)
    return (features @ _weight(seed, FEATURES, CLASSES)).astype(np.float32)


def write_family(path: Path, seeds: Mapping[str, int], trunk: str = TRUNK) -> Repository:
    """Write a repository of these tasks, without `all_tasks`, which is for those who read it on Triton's side."""
    for name, seed in seeds.items():
        write_task(path, name, seed, trunk=trunk)
    return read_repository(path)


def write_task(path: Path, name: str, seed: int, version: int = 1, trunk: str = TRUNK) -> None:
    """Write a task into the repository at `path`, or another version in place of the one that is there."""
    _write_segment(path, trunk, _TRUNK_SEED, (PIXELS, FEATURES))
    _write_segment(path, head(name, seed), seed, (FEATURES, CLASSES))
    steps = (Step(trunk, (IMAGE.name,), ("features",)), Step(head(name, seed), ("features",), (name,)))
    task = Task(name, steps, (IMAGE,), (TensorSpec(name, "FP32", (CLASSES,)),), MAX_ROWS)
    (path / name).mkdir(exist_ok=True)
    for old in (path / name).glob("[0-9]*"):
        old.rmdir()
    (path / name / str(version)).mkdir()
    _write(path / name / "config.pbtxt", to_text(task_config(task)).encode())


def set_gate(path: Path, segment: str, gate: Path) -> None:
    """Have a segment, on Triton, compute the same in Python, but nothing as long as there is a file `gate`: as one that takes long."""
    folder = path / segment
    config = parse_text((folder / "config.pbtxt").read_text(), segment)
    config.backend, config.default_model_filename = "python", "model.py"
    (folder / "config.pbtxt").write_text(to_text(config))
    (weight,) = onnx.load(folder / "1" / "model.onnx").graph.initializer
    numbers = numpy_helper.to_array(weight).tolist()
    code = _GATED.format(gate=str(gate), weight=numbers, input=SEGMENT_INPUT, output=SEGMENT_OUTPUT)
    (folder / "1" / "model.py").write_text(code)


_GATED = """
import os, time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        end = time.monotonic() + 20
        while os.path.exists({gate!r}) and time.monotonic() < end:
            time.sleep(0.002)
        return [self.answer(pb.get_input_tensor_by_name(request, {input!r}).as_numpy()) for request in requests]

    def answer(self, rows):
        flat = rows.reshape(len(rows), -1).astype(np.float32)
        return pb.InferenceResponse([pb.Tensor({output!r}, flat @ np.array({weight}, np.float32))])
"""


def _write_segment(path: Path, name: str, seed: int, sizes: tuple[int, int]) -> None:
    if (path / name).exists():
        return
    is_trunk = seed == _TRUNK_SEED
    segment = Segment(
        name=name,
        inputs=(TensorSpec(SEGMENT_INPUT, *((IMAGE.dtype, IMAGE.shape) if is_trunk else ("FP32", (FEATURES,)))),),
        outputs=(TensorSpec(SEGMENT_OUTPUT, "FP32", sizes[1:]),),
        blocks=(0, 0) if is_trunk else (1, 1),
        digest=f"{seed:064x}",
        max_batch_rows=MAX_ROWS,
        rows="independent",
    )
    (path / name / "1").mkdir(parents=True)
    onnx.save(_model(segment, _weight(seed, *sizes).astype(np.float32)), path / name / "1" / "model.onnx")
    _write(path / name / "config.pbtxt", to_text(segment_config(segment)).encode())


def _model(segment: Segment, weight: NDArray[np.float32]) -> onnx.ModelProto:
    (taken,), (given,) = segment.inputs, segment.outputs
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [taken.name], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["floats"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], [given.name]),
        ],
        segment.name,
        [
            helper.make_tensor_value_info(
                taken.name, TensorProto.UINT8 if taken.dtype == "UINT8" else TensorProto.FLOAT, ["rows", *taken.shape]
            )
        ],
        [helper.make_tensor_value_info(given.name, TensorProto.FLOAT, ["rows", *given.shape])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


def _weight(seed: int, rows: int, columns: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-3, 4, (rows, columns))


def _write(path: Path, content: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(content)
    new.replace(path)
