"""What tasks of tuned biases take on disk and in memory: `python -m benchmarks.studies.tuned_biases --tasks 8`.

An encoder of 12 layers (width 384, 64 tokens; random weights), of which each task has its own biases, norms and head: no computation is
shared behind the first layer norm, and all matrices are equal. Exported twice: as it is, and with every weight inside of its segment's
model, as until now. Each repository is opened in a fresh process, from a segment cache that holds it. Prints a line for each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness.process_memory import memory_of_process
from contract.repository import read_repository
from exporter.build import shared_weights
from exporter.export import ExportOptions, export_repository
from exporter.sources.task_model import Sources, TaskModel
from serving.engines.onnxruntime.runtime import session_store
from serving.engines.sessions.runtime import SegmentFile, SessionStoreOptions

_WIDTH, _TOKENS, _LAYERS = 384, 64, 12


def _encoder(task: int) -> ir.Model:
    """Return the network of a task: matrices of everybody's, biases, norms and a head of its own."""
    nodes: list[Any] = []
    weights: list[Any] = []
    own = np.random.default_rng(1000 + task)
    common = np.random.default_rng(0)

    def weight(array: NDArray[Any]) -> str:
        weights.append(numpy_helper.from_array(array.astype(np.float32), f"w{len(weights)}"))
        return f"w{len(weights) - 1}"

    def node(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"v{len(nodes)}"], name=f"{op} {len(nodes)}", **attributes))
        return str(nodes[-1].output[0])

    def linear(x: str, inner: int, outer: int) -> str:
        product = node("MatMul", x, weight(common.standard_normal((inner, outer)) / np.sqrt(inner)))
        return node("Add", product, weight(own.standard_normal(outer) / 10))

    def norm(x: str) -> str:
        scale, bias = (weight(mean + own.standard_normal(_WIDTH) / 10) for mean in (1, 0))
        return node("LayerNormalization", x, scale, bias)

    x = "tokens"
    for _ in range(_LAYERS):
        inner = norm(x)
        query, key, value = (linear(inner, _WIDTH, _WIDTH) for _ in range(3))
        scores = node("MatMul", query, node("Transpose", key, perm=[0, 2, 1]))
        mixed = node("MatMul", node("Softmax", node("Mul", scores, weight(np.array(_WIDTH**-0.5)))), value)
        x = node("Add", x, linear(mixed, _WIDTH, _WIDTH))
        x = node("Add", x, linear(node("Relu", linear(norm(x), _WIDTH, 4 * _WIDTH)), 4 * _WIDTH, _WIDTH))
    weights.append(numpy_helper.from_array(np.array([1]), "axes"))
    pooled = node("ReduceMean", x, "axes", keepdims=0)
    logits = node("MatMul", pooled, weight(own.standard_normal((_WIDTH, 10))))
    shapes: dict[str, list[int | str]] = {"tokens": ["batch", _TOKENS, _WIDTH], logits: ["batch", 10]}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "encoder", ends[:1], ends[1:], weights)
    model: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    return model


def main() -> None:
    """Export, open and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--open", nargs=2, metavar=("REPOSITORY", "CACHE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(_open(*map(Path, arguments.open))))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("once", "each"):
            if name == "each":
                shared_weights._SMALLEST_FILE = 1 << 60
            repository = Path(folder) / name
            sources = {f"task{index}": _loader(index) for index in range(arguments.tasks)}
            export_repository(Sources(sources, None), ExportOptions(repository))
            disk = {file.stat().st_ino: file.stat().st_size for file in repository.rglob("*") if file.is_file()}
            command = [
                sys.executable,
                "-m",
                "benchmarks.studies.tuned_biases",
                "--open",
                str(repository),
                f"{folder}/{name} cache",
            ]
            for way in ("new", "known"):
                found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                print(f"{name:5} {way:6} disk {sum(disk.values()) / 1e6:7.1f} MB  {_words(found)}", flush=True)


def _loader(index: int) -> Callable[[], TaskModel]:
    return lambda: TaskModel(_encoder(index))


def _open(repository: Path, cache: Path) -> dict[str, float]:
    store = session_store(SessionStoreOptions(threads=1, cache_folder=cache))
    segments = read_repository(repository)
    files = [SegmentFile(segment, segments.model_file(name)) for name, segment in segments.segments.items()]
    before, start = memory_of_process(_pid()), time.perf_counter()
    store.open(files)
    opened = time.perf_counter() - start
    rows, times = np.random.default_rng(0).standard_normal((1, _TOKENS, _WIDTH)).astype(np.float32), []
    for _ in range(5):
        for file in files:
            start = time.perf_counter()
            store.run(file.segment.name, [rows])
            times.append(time.perf_counter() - start)
    after = memory_of_process(_pid())
    return {
        "open_s": opened,
        "run_ms": statistics.median(times) * 1e3,
        "proportional": after.proportional - before.proportional,
        "anonymous": after.anonymous - before.anonymous,
    }


def _pid() -> int:
    return int(Path("/proc/self").resolve().name)


def _words(found: dict[str, float]) -> str:
    sizes = f"PSS +{found['proportional'] / 1e6:6.1f} MB, of it anonymous {found['anonymous'] / 1e6:6.1f}"
    return f"{sizes}; opened in {found['open_s']:5.2f} s, a run {found['run_ms']:6.2f} ms"


if __name__ == "__main__":
    main()
