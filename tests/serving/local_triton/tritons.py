"""Repositories for a real Triton, as the exporter writes them, and clients of one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from numpy.typing import NDArray
from onnx import TensorProto, helper

from contract.dtypes import NUMPY_DTYPES, dtype_name
from contract.plan import make_plan
from contract.repository import Repository
from contract.repository.unite import united_inputs
from exporter.export import ExportOptions, export_repository
from exporter.sharing.choose import CutOptions
from exporter.sources.task_model import Sources, TaskModel
from serving.engines.embedded import EmbeddedEngine
from serving.local_triton.local import TritonAddresses
from tests.exporter.biased import biased
from tests.exporter.dense import Dense
from tests.exporter.graphs import Net
from tests.exporter.wired import FROZEN, Wired, plain, siamese, with_embedding, with_joint_end, with_metadata, with_side_head

Arrays = dict[str, NDArray[Any]]
MAX_ROWS = 64
KINDS = "every-dtype"
FAILS = "takes-row-2"


def features(seeds: dict[str, int]) -> ir.Model:
    net = Wired()
    return net.model(net.layers("image", seeds))


def site_alone(seed: int) -> ir.Model:
    net = Wired({"site": 3})
    return net.model(net.layer("site", "logits", seed, 3))


# What sharing can come to: forks and merges; heads on two taps, several outputs, equal outputs, outputs that others go on from; inputs;
# weights alone.
FAMILIES: dict[str, tuple[Callable[[], ir.Model] | None, dict[str, Callable[[], ir.Model]]]] = {
    "images": (
        lambda: Net().model(),
        {
            "probe": lambda: Net(blocks=(1, 2, 3, 4), head=1).model(),
            "late": lambda: Net(blocks=(1, 2, 3, 40), head=2, classes=5).model(),
            "middle": lambda: Net(blocks=(1, 20, 3, 4), head=3).model(),
            "early": lambda: Net(blocks=(10, 2, 3, 4), head=4, classes=2).model(),
        },
    ),
    "wirings": (
        lambda: plain(FROZEN, head=9),
        {
            "probe": lambda: plain(FROZEN, head=20),
            "same": lambda: plain(FROZEN, head=20),
            "features": lambda: features(FROZEN),
            "early": lambda: features({"b1": 1, "b2": 2}),
            "embed": lambda: with_embedding(21),
            "side": lambda: with_side_head(22),
            "joint": lambda: with_joint_end(23),
            "twin": lambda: siamese({"b3": 33, "b4": 44}, head=24, prefix="x."),
        },
    ),
    # No output needs every input, so that `all_tasks` begins with copies.
    "inputs": (
        None,
        {
            "one": lambda: with_metadata(20),
            "two": lambda: with_metadata(21),
            "still": lambda: plain(FROZEN, head=22),
            "place": lambda: site_alone(23),
        },
    ),
    "levels": (
        None,
        {
            "mask": lambda: Dense("pyramid").model(),
            "boxes": lambda: Dense("detector", 91, (10, 20, 30, 41)).model(),
            "kind": lambda: Dense("classes", 92).model(),
        },
    ),
    "links": (None, {"one": lambda: biased(1, 1), "two": lambda: biased(2, 2)}),
}
LABELS = {"probe": ("cat", "dog", "emu"), "early": ("even", "odd")}


def export_family(name: str, out: Path) -> Repository:
    backbone, tasks = FAMILIES[name]
    labels: Mapping[str, tuple[str, ...]] = LABELS if name == "images" else {}
    loaders = {task: (lambda task=task, make=make: TaskModel(make(), labels.get(task, ()))) for task, make in tasks.items()}
    source = None if backbone is None else (lambda: TaskModel(backbone()))
    options = ExportOptions(out, cuts=CutOptions("exact"), max_batch_rows=MAX_ROWS)
    return export_repository(Sources(loaders, source), options).repository


def rows_for(repository: Repository, rows: int, seed: int = 0, outputs: Sequence[str] | None = None) -> Arrays:
    """Return random inputs of the repository's tasks. outputs: whose tasks' inputs alone are to be there."""
    random = np.random.default_rng(seed)
    specs = united_inputs(repository.tasks.values()) or ()
    made = {
        spec.name: random.integers(0, 256, (rows, *spec.shape), dtype=np.uint8)
        if spec.dtype == "UINT8"
        else random.standard_normal((rows, *spec.shape)).astype(np.float32)
        for spec in specs
    }
    wanted = made if outputs is None else make_plan(repository, outputs).inputs
    return {name: made[name] for name in made if name in wanted}


def embedded_answers(repository: Repository, inputs: Arrays) -> Arrays:
    """Return all outputs of all tasks, from the embedded engine."""

    async def infer() -> Arrays:
        engine = EmbeddedEngine(repository, threads=1)
        await engine.start()
        try:
            return dict((await engine.infer(make_plan(repository, list(repository.tasks)), inputs)).outputs)
        finally:
            await engine.aclose()

    return asyncio.run(infer())


def plan_rows(repository: Repository, outputs: Sequence[str], rows: int) -> Counter[str]:
    """Return how many rows each segment sees when a request with `rows` rows asks for `outputs`."""
    seen = Counter[str]()
    for step in make_plan(repository, outputs).steps:
        seen[step.segment] += rows * len(step.inputs)
    return seen


@dataclass(frozen=True)
class Client:
    """Asks a Triton over one protocol."""

    module: Any
    server: Any

    def infer(self, model: str, inputs: Arrays, outputs: Iterable[str] = (), class_count: int = 0) -> Arrays:
        tensors = []
        for name, array in inputs.items():
            tensors.append(self.module.InferInput(name, list(array.shape), dtype_name(array)))
            tensors[-1].set_data_from_numpy(array)
        wanted = [self.module.InferRequestedOutput(name, class_count=class_count) for name in outputs]
        result = self.server.infer(model, tensors, outputs=wanted or None)
        response = result.get_response()
        names = (
            [item["name"] for item in response["outputs"]] if isinstance(response, dict) else [o.name for o in response.outputs]
        )
        return {name: result.as_numpy(name) for name in names}

    def close(self) -> None:
        self.server.close()


def connect(protocol: str, addresses: TritonAddresses) -> Client:
    if protocol == "http":
        return Client(http_client, http_client.InferenceServerClient(addresses.http, network_timeout=120.0, concurrency=8))
    return Client(grpc_client, grpc_client.InferenceServerClient(addresses.grpc))


def write_every_dtype(repository: Path) -> None:
    """Write a model that copies one input of every dtype."""
    names = {"BYTES": "STRING", "FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE"}
    kinds = {kind: TensorProto.DataType.Value(names.get(kind, kind)) for kind in NUMPY_DTYPES}
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"in_{kind}"], [f"out_{kind}"]) for kind in kinds],
        KINDS,
        [helper.make_tensor_value_info(f"in_{kind}", element, ["batch", 2]) for kind, element in kinds.items()],
        [helper.make_tensor_value_info(f"out_{kind}", element, ["batch", 2]) for kind, element in kinds.items()],
    )
    tensors = [(f"{way}_{kind}", kind, [2]) for way in ("in", "out") for kind in kinds]
    _write(repository, KINDS, graph, tensors, max_rows=8)


def write_fails(repository: Path) -> None:
    """Write a model without a batch axis that takes a row of three by its number: 3 or more makes it fail."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [0.5, 1.5, 2.5])
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "in"], ["out"])],
        FAILS,
        [helper.make_tensor_value_info("in", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n"])],
        [table],
    )
    _write(repository, FAILS, graph, [("in", "INT64", [-1]), ("out", "FP32", [-1])], max_rows=0)


def _write(repository: Path, name: str, graph: onnx.GraphProto, tensors: list[tuple[str, str, list[int]]], max_rows: int) -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), folder / "model.onnx")
    lines = [f'backend: "onnxruntime"\nmax_batch_size: {max_rows}']
    for tensor, kind, dims in tensors:
        way = "input" if tensor.startswith("in") else "output"
        lines.append(f'{way} {{ name: "{tensor}" data_type: TYPE_{"STRING" if kind == "BYTES" else kind} dims: {dims} }}')
    (folder.parent / "config.pbtxt").write_text("\n".join(lines))
