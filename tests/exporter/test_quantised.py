"""Networks in int8 (QDQ): what passes between segments is int8, and each convolution runs so in its segment."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tritonclient.http as http_client
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from contract.dtypes import NUMPY_DTYPES
from contract.repository import Repository, TensorSpec, read_repository
from exporter.add import AddOptions, add_tasks
from exporter.build.repository_chains import read_repository_chains
from exporter.build.weight_store import WeightStore
from exporter.export import ExportOptions, export_repository
from exporter.sharing.choose import CutOptions
from exporter.sources.onnx_file import load_onnx
from serving.server import BackgroundServer
from tests.exporter.graphs import SIZE, Net
from tests.exporter.quantised import quantised, quantised_siamese, quantised_with_side_head
from tests.exporter.test_recut import check_answers, recut, sources

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

FROZEN = (1, 2, 3, 4)
FEATURES, POOLED = ("UINT8", 4 * 8 * 8), ("FP32", 4 * 4)  # a mean of 64 numbers is less than they, in whatever type


def export(out: Path, models: Mapping[str, ir.Model], backbone: ir.Model | None = None) -> Repository:
    return export_repository(sources(models, backbone), ExportOptions(out, cuts=CutOptions("exact"))).repository


def between(repository: Repository) -> set[tuple[str, int]]:
    """The types of what passes between segments, and its bytes for one row."""
    found = set()
    for task in repository.tasks.values():
        ends = {spec.name for spec in (*task.inputs, *task.outputs)}
        for step in task.steps:
            specs = repository.segments[step.segment].inputs
            found |= {(spec.dtype, size_of(spec)) for name, spec in zip(step.inputs, specs, strict=True) if name not in ends}
    return found


def size_of(spec: TensorSpec) -> int:
    return prod(spec.shape) * NUMPY_DTYPES[spec.dtype].itemsize


def run_as(repository: Repository, segment: str, folder: Path) -> set[str]:
    """The operators that ONNX Runtime makes of a segment."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / f"{segment}.onnx")
    ort.InferenceSession(str(repository.model_file(segment)), options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(folder / f"{segment}.onnx").graph.node}


@pytest.mark.parametrize("backbone", [None, quantised(FROZEN, head=9)], ids=["alone", "backbone"])
def test_a_border_lies_between_quantising_and_dequantising(tmp_path: Path, backbone: ir.Model | None) -> None:
    tasks = {"one": quantised((1, 2, 3, 40), head=5), "two": quantised((1, 2, 3, 41), head=6)}
    repository = export(tmp_path / "repo", tasks, backbone)
    check_answers(repository, tasks)
    assert between(repository) == {FEATURES}
    assert "Conv" not in set.union(*(run_as(repository, name, tmp_path) for name in repository.segments))
    trunk = repository.segments[repository.tasks["one"].steps[0].segment]
    assert trunk.outputs[0].dtype == "UINT8"
    assert "TYPE_UINT8" in (repository.path / trunk.name / "config.pbtxt").read_text()


def test_ways_meet_between_quantising_and_dequantising(tmp_path: Path) -> None:
    tasks = {"one": quantised((1, 20, 3, 4), head=5), "two": quantised((1, 21, 3, 4), head=6)}
    repository = export(tmp_path / "repo", tasks)
    check_answers(repository, tasks)
    assert between(repository) == {FEATURES, POOLED}
    one, two = ([step.segment for step in task.steps] for task in repository.tasks.values())
    assert (one[0], one[2]) == (two[0], two[2])  # the trunk, and the frozen layers behind the tuned one
    convolved = [name for name in repository.segments if "Conv" in run_as(repository, name, tmp_path)]
    assert not convolved


def test_a_siamese_head_takes_two_taps_in_int8(tmp_path: Path) -> None:
    tasks = {"probe": quantised((*FROZEN, 50), head=5), "twin": quantised_siamese(FROZEN, 2, (30, 40), head=6)}
    repository = export(tmp_path / "repo", tasks)
    check_answers(repository, tasks)
    assert between(repository) == {FEATURES}
    assert repository.tasks["probe"].steps[0] == repository.tasks["twin"].steps[0]


def test_a_second_output_leaves_in_front_of_what_dequantises(tmp_path: Path) -> None:
    tasks = {"two": quantised_with_side_head(FROZEN, at=2, head=5), "one": quantised((1, 2, 3, 40), head=7)}
    repository = export(tmp_path / "repo", tasks)
    check_answers(repository, tasks)
    assert between(repository) == {FEATURES}
    assert len(repository.tasks["two"].steps) == 4  # both networks' trunk, the next layer, the last one and the side head


def test_it_is_read_back_added_to_and_cut_anew(tmp_path: Path) -> None:
    tasks = {"one": quantised((1, 2, 3, 40), head=5), "two": quantised((1, 20, 3, 4), head=6)}
    repository = export(tmp_path / "repo", tasks)
    read = read_repository_chains(read_repository(tmp_path / "repo"), WeightStore(tmp_path))
    assert read.digests == {name: segment.digest for name, segment in repository.segments.items()}
    tasks["three"] = quantised((1, 2, 30, 4), head=7)
    added = add_tasks(tmp_path / "repo", sources({"three": tasks["three"]}), AddOptions())
    check_answers(added.repository, tasks)
    assert added.repository.tasks["three"].steps[0] == repository.tasks["one"].steps[0]
    cut = recut(tmp_path / "repo").repository
    check_answers(cut, tasks)
    assert between(cut) == {FEATURES, POOLED}


def test_two_networks_of_onnxruntime_are_served_as_they_are(tmp_path: Path) -> None:
    files = {name: by_onnxruntime(tmp_path, name, net) for name, net in (("one", Net()), ("two", Net((1, 2, 3, 9), head=7)))}
    repository = export(tmp_path / "repo", {name: load_onnx(file) for name, file in files.items()})
    assert between(repository) == {("UINT8", 144)}
    assert repository.tasks["one"].steps[0] == repository.tasks["two"].steps[0]
    rows = np.random.default_rng(3).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1, check_samples=True) as server:
        client = http_client.InferenceServerClient(f"127.0.0.1:{server.http_port}")
        image = http_client.InferInput("image", rows.shape, "UINT8")
        image.set_data_from_numpy(rows)
        answer = client.infer("all_tasks", [image])
        client.close()
    for name, file in files.items():
        whole = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(answer.as_numpy(name), whole.run(None, {"image": rows})[0], rtol=1e-5, atol=1e-5)


def test_a_network_that_was_quantised_apart_shares_nothing_and_that_is_said(tmp_path: Path) -> None:
    tasks = {"one": quantised(FROZEN, head=5), "two": quantised(FROZEN, head=6, step=0.06)}
    report = export_repository(sources(tasks), ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    check_answers(report.repository, tasks)
    assert all("shares no computation, because it was quantised by other steps (" in said for said in report.remarks.values())
    assert report.remarks


class Rows:
    """What ONNX Runtime calls a CalibrationDataReader."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._rows = iter([{"image": rng.integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)} for _ in range(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)


def by_onnxruntime(folder: Path, name: str, net: Net) -> Path:
    """Write `net` in int8: the same rows give what is frozen the same steps."""
    file = folder / f"{name}.onnx"
    quantize_static(
        net.save(folder / f"{name}.float.onnx"),
        file,
        Rows(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return file
