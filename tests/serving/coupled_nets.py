"""Tasks whose rows affect each other, as people have them: quantised by `quantize_dynamic`, and less their mean over the batch.

rows -+-> dense -+-> quantised     (the task `quantised`: scales follow the largest number of the batch)
      |          +-> line          (the task `plain`: every row by itself)
      +-> centred ---> head        (the task `centred`: rows less their mean; its head takes every row by itself)

Whole numbers go in, and all but `quantised` compute exactly: what a request is answered depends on what ran together, and on nothing else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from contract.repository import ALL_TASKS, Repository, Segment, Step, Task, TensorSpec, read_repository
from contract.repository.config import all_tasks_config, segment_config, task_config, to_text
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, Rows

WIDTH, INNER, CLASSES, MAX_ROWS = 16, 8, 3, 6
ROWS = TensorSpec("rows", "FP32", (WIDTH,))
COUPLED = ("quantised-mlp", "centred-rows")
SIZES = {
    "dense": (WIDTH, INNER),
    "quantised-mlp": (INNER, CLASSES),
    "line": (INNER, CLASSES),
    "centred-rows": (WIDTH, WIDTH),
    "head": (WIDTH, CLASSES),
}
CHAINS = {"quantised": ("dense", "quantised-mlp"), "plain": ("dense", "line"), "centred": ("centred-rows", "head")}


def some_rows(count: int, seed: int) -> NDArray[np.float32]:
    """Return whole numbers, of one request in another range than of the next."""
    random = np.random.default_rng(seed)
    return random.integers(-9, 10, (count, WIDTH)).astype(np.float32) * float(random.integers(1, 20))


def make_segment(name: str, marked: bool = True) -> Segment:
    """Return a segment of the family; marked: whether it says what its rows are."""
    taken, given = SIZES[name]
    rows: Rows = "" if not marked else "coupled" if name in COUPLED else "independent"
    tensors = (TensorSpec(SEGMENT_INPUT, "FP32", (taken,)),), (TensorSpec(SEGMENT_OUTPUT, "FP32", (given,)),)
    digest = f"{list(SIZES).index(name):064x}"
    return Segment(name, *tensors, blocks=(0, 0), digest=digest, max_batch_rows=MAX_ROWS, macs=taken * given, rows=rows)


def make_tasks() -> dict[str, Task]:
    tasks = {}
    for name, (first, last) in CHAINS.items():
        steps = (Step(first, (ROWS.name,), (f"tap-{first}",)), Step(last, (f"tap-{first}",), (name,)))
        tasks[name] = Task(name, steps, (ROWS,), (TensorSpec(name, "FP32", (CLASSES,)),), MAX_ROWS)
    return tasks


def write_coupled(path: Path, marked: bool = True, all_tasks: str = ALL_TASKS) -> Repository:
    """Write the family as a model repository. all_tasks: the name of the ensemble of all."""
    for name in SIZES:
        (path / name / "1").mkdir(parents=True)
        _write_model(name, path / name / "1" / "model.onnx")
        (path / name / "config.pbtxt").write_text(to_text(segment_config(make_segment(name, marked))))
    tasks = make_tasks()
    configs = {name: task_config(task) for name, task in tasks.items()} | {all_tasks: all_tasks_config(tasks.values())}
    for name, config in configs.items():
        config.name = name
        (path / name / "1").mkdir(parents=True)
        (path / name / "config.pbtxt").write_text(to_text(config))
    return read_repository(path)


def _write_model(name: str, file: Path) -> None:
    random = np.random.default_rng(len(name))
    taken, given = SIZES[name]
    weights: dict[str, NDArray[np.generic]] = {}
    if name == "centred-rows":
        nodes = [
            helper.make_node("ReduceMean", [SEGMENT_INPUT], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", [SEGMENT_INPUT, "mean"], [SEGMENT_OUTPUT]),
        ]
    elif name == "quantised-mlp":
        weights = {"w": random.normal(size=(taken, 32)), "v": random.normal(size=(32, given))}
        nodes = [
            helper.make_node("MatMul", [SEGMENT_INPUT, "w"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "v"], [SEGMENT_OUTPUT]),
        ]
    else:
        weights = {"w": random.integers(-3, 4, (taken, given))}
        nodes = [helper.make_node("MatMul", [SEGMENT_INPUT, "w"], [SEGMENT_OUTPUT])]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(SEGMENT_INPUT, TensorProto.FLOAT, ["n", taken])],
        [helper.make_tensor_value_info(SEGMENT_OUTPUT, TensorProto.FLOAT, ["n", given])],
        [numpy_helper.from_array(value.astype(np.float32), key) for key, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), file)
    if name == "quantised-mlp":
        quantize_dynamic(file, file, weight_type=QuantType.QUInt8)
        assert "DynamicQuantizeLinear" in {node.op_type for node in onnx.load(file).graph.node}
