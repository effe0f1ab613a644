"""Networks in other precisions: real ones, small enough to be converted in a moment."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from benchmarks.framework.errors import PrecisionUnavailable
from benchmarks.framework.options import Options, Scale
from benchmarks.harness.noise import Measurement
from benchmarks.latency.case import LatencyCase
from benchmarks.latency.precision.bfloat import in_bf16, to_bf16
from benchmarks.latency.precision.kernels import with_kernels
from benchmarks.latency.precision.quantise import quantised, reduces_range
from benchmarks.latency.precision.rewrite import calibration, weight_bytes
from benchmarks.latency.precision.variants import Precise, PreciseVariants, make_precise
from benchmarks.latency.precision_tables import PrecisionChange, precision_tables
from benchmarks.latency.variants import Times
from benchmarks.models.accuracy import Deviation, answers, deviation, mean_deviation, pictures
from benchmarks.models.tiny import SIZE, write_tiny_family
from benchmarks.models.vit_onnx import VitSize, write_vit
from contract.repository import Repository, read_repository
from exporter.export import ExportOptions, export_repository
from exporter.sources.task_model import Sources, TaskModel

pytestmark = pytest.mark.slow  # each is short, but together they take more than the fast part has room for

ROWS = pictures(8, SIZE, seed=2)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return write_tiny_family(tmp_path_factory.mktemp("tiny") / "repository")


@pytest.fixture(scope="module")
def int8(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return quantised(repository, pictures(16, SIZE, seed=1), tmp_path_factory.mktemp("int8") / "repository")


def operators(repository: Repository, segment: str) -> set[str]:
    return {node.op_type for node in onnx.load(repository.model_file(segment)).graph.node}


def test_a_quantised_repository_is_one_of_new_segments_for_the_same_tasks(repository: Repository, int8: Repository) -> None:
    assert read_repository(int8.path) == int8
    assert int8.tasks.keys() == repository.tasks.keys()
    assert not int8.segments.keys() & repository.segments.keys()
    by_place = {name.rpartition("-")[0]: segment for name, segment in int8.segments.items()}
    assert by_place.keys() == {name.rpartition("-")[0] for name in repository.segments}
    for name, segment in repository.segments.items():
        quantised = by_place[name.rpartition("-")[0]]
        assert (quantised.inputs, quantised.outputs, quantised.macs) == (segment.inputs, segment.outputs, segment.macs)
        assert quantised.digest != segment.digest
        assert quantised.weight_bytes < segment.weight_bytes
        assert {"QuantizeLinear", "DequantizeLinear"} <= operators(int8, quantised.name)
    assert all(task.provenance["precision"] == "int8" and task.parity is None for task in int8.tasks.values())


def test_the_engine_answers_in_int8_nearly_as_in_fp32(repository: Repository, int8: Repository) -> None:
    names = list(repository.tasks)
    expected, found = (answers(one, names, ROWS, 1) for one in (repository, int8))
    for name in names:
        assert found[name].shape == expected[name].shape == (len(ROWS), 4)
        assert 0 < deviation(expected[name], found[name]).of_spread < 0.5


@pytest.mark.parametrize(
    ("threads", "names", "variants"), [(1, ["early", "late"], 2), (2, ["early", "late"], 3), (2, ["late"], 2)]
)
def test_separate_networks_in_int8_compute_what_the_shared_trunk_does(
    int8: Repository, tmp_path: Path, threads: int, names: list[str], variants: int
) -> None:
    folder = tmp_path / "int8"
    copied = replace(int8, path=shutil.copytree(int8.path, folder / "repository"))
    exact = Precise("int8", copied, Deviation(0.0, 0.0, 1.0, 1))

    async def ask(opened: PreciseVariants) -> tuple[str, list[str]]:
        await opened.start()
        try:
            with ThreadPoolExecutor(1) as worker:
                calls = opened.calls(names, ROWS[:1], worker)
                for call in calls.values():
                    await call()
            return await opened.difference(list(copied.tasks), ROWS), list(calls)
        finally:
            await opened.aclose()

    wanted = ["shared int8", "separate int8", "separate int8, side by side"]
    assert asyncio.run(ask(PreciseVariants(exact, threads))) == ("", wanted[:variants])
    assert not folder.exists()


def test_gains_in_other_precisions_are_those_of_the_faster_separate_networks() -> None:
    seconds = {"shared": [0.01], "separate": [0.04], "separate, side by side": [0.03]}
    seconds |= {"shared int8": [0.005], "separate int8": [0.012], "separate int8, side by side": [0.015]}
    measured = LatencyCase(
        network="net", fork="block", tasks=4, predicted=4.0, times=Measurement(Times(seconds, 0.003, 0.001, ""), 0.0, 1)
    )
    change = PrecisionChange("net", "block", "int8", Deviation(0.1, 0.1, 1.0, 1), 1, 4)
    fp32, int8 = precision_tables([measured], [change], [])[0].rows
    assert (fp32["speedup"], int8["speedup"]) == (pytest.approx(3), pytest.approx(2.4))
    assert int8["shared_gain"] == pytest.approx(2)
    assert int8["separate_gain"] == pytest.approx(30 / 12)
    assert str(int8["separate, side by side"]).startswith("15.00 ms")


def test_networks_with_attention_are_quantised_dynamically(tmp_path: Path) -> None:
    file = write_vit(tmp_path / "vit.onnx", VitSize(depth=1, width=32, heads=2, patch=4, image=8, classes=4))
    load = partial(TaskModel, ir.load(file))
    repository = export_repository(Sources({"task": load}), ExportOptions(tmp_path / "fp32")).repository
    rows = np.random.default_rng(0).standard_normal((4, 3, 8, 8), np.float32)
    int8 = quantised(repository, rows, tmp_path / "int8")
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= set.union(*(operators(int8, name) for name in int8.segments))
    expected, found = (answers(one, ["task"], rows, 1)["task"] for one in (repository, int8))
    assert 0 < deviation(expected, found).of_spread < 0.5


def test_each_segment_is_calibrated_with_what_it_is_given(repository: Repository) -> None:
    feeds = dict(calibration(repository, ROWS))
    assert feeds.keys() == repository.segments.keys()
    for name, given_ in feeds.items():
        session = ort.InferenceSession(repository.model_file(name))
        assert 1 <= len(given_) <= 2
        for feed in given_:
            assert {spec.name: feed[spec.name].shape for spec in session.get_inputs()} == {
                spec.name: (len(ROWS), *spec.shape) for spec in repository.segments[name].inputs
            }


@pytest.mark.parametrize(
    ("flags", "machine", "reduced"),
    [
        (("avx2",), "x86_64", True),
        (("avx2", "avx512_vnni"), "x86_64", False),
        (("avx2", "avx_vnni"), "x86_64", False),
        (("asimd", "asimddp"), "aarch64", False),
    ],
)
def test_weights_have_seven_bits_where_sums_would_overflow(flags: Sequence[str], machine: str, reduced: bool) -> None:
    assert reduces_range(flags, machine) == reduced


def test_networks_in_bf16_compute_nearly_the_same(repository: Repository, tmp_path: Path) -> None:
    converted = in_bf16(repository, ROWS, tmp_path / "bf16")
    for (name, segment), new in zip(repository.segments.items(), converted.segments.values(), strict=True):
        model = onnx.load(converted.model_file(new.name))
        onnx.checker.check_model(model, full_check=True)
        before = onnx.load(repository.model_file(name))
        sizes = sum(len(tensor.raw_data) for tensor in before.graph.initializer if tensor.data_type == onnx.TensorProto.INT64)
        assert 2 * (new.weight_bytes - sizes) == weight_bytes(before) - sizes
        assert all(weight.data_type != onnx.TensorProto.FLOAT for weight in model.graph.initializer)
        rows = next(feeds for other, feeds in calibration(repository, ROWS) if other == name)[0]
        (expected,) = ort.InferenceSession(repository.model_file(name)).run(None, dict(rows))
        (found,) = ReferenceEvaluator(model).run(None, dict(rows))
        assert found.dtype == np.float32
        assert 0 < deviation(expected.reshape(len(ROWS), -1), found.reshape(len(ROWS), -1)).of_size < 0.02
        assert segment.outputs == new.outputs


def test_a_precision_without_kernels_is_refused_with_the_provider_and_the_reason(repository: Repository, tmp_path: Path) -> None:
    assert with_kernels(["fp32", "int8"]) == (("fp32", "int8"), ())
    reason = r"CPUExecutionProvider opens no network in bf16 \(.*Conv.*\); leave bf16 out"
    with pytest.raises(PrecisionUnavailable, match=reason):
        with_kernels(["fp32", "bf16"])
    left, (said,) = with_kernels(["fp32", "bf16", "int8"])
    assert left == ("fp32", "int8")
    assert re.search(reason, said)
    assert with_kernels(["fp32", "bf16"], elsewhere=True)[0] == ("fp32",)
    small = replace(repository, tasks={"late": repository.tasks["late"]})
    made, refused = make_precise(small, ("fp32", "bf16"), Options(tmp_path, Scale.tiny, threads=1))
    assert made == []
    assert len(refused) == 1
    assert "opens no network in bf16" in refused[0]
    assert list(tmp_path.iterdir()) == []


def test_inputs_and_outputs_keep_their_names_in_bf16() -> None:
    image = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2])
    answer = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])
    weight = onnx.numpy_helper.from_array(np.float32([1, 1 + 2**-9]), "w")  # the second number needs more bits than bf16 has
    graph = onnx.helper.make_graph([onnx.helper.make_node("Mul", ["x", "w"], ["y"])], "g", [image], [answer], [weight])
    model = to_bf16(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "y"]
    assert [node.op_type for node in model.graph.node] == ["Cast", "Mul", "Cast"]
    (found,) = ReferenceEvaluator(model).run(None, {"x": np.float32([[3, 3]])})
    assert found.tolist() == [[3, 3]]


def test_what_is_tested_has_learnt_something() -> None:
    from benchmarks.latency.precision.trained import PrecisionTraining, pretrained
    from tuning.data.digits import digit_task
    from tuning.training.fit import evaluate

    backbone = pretrained(PrecisionTraining(3, (8, 8, 8, 8), (1, 1, 1, 1)))
    preprocessing = backbone.spec.preprocessing
    assert evaluate(backbone.network, digit_task("digits", preprocessing).test, preprocessing) > 0.3  # a guess is right in 10 %


def test_deviation_is_counted_by_hand() -> None:
    expected = np.float32([[3, 1], [1, 3]])  # size: root of 5; from the mean (2, 2) they are 1 apart
    found = deviation(expected, np.float32([[2, 1], [2, 1]]))  # differences 1, 0, 1, 2
    assert found == Deviation(pytest.approx((6 / 4 / 5) ** 0.5), pytest.approx(1.5**0.5), 0.5, 2)
    assert deviation(expected, expected) == Deviation(0.0, 0.0, 1.0, 2)
    assert deviation(expected[:1], found=expected[:1] + 1).of_spread == float("inf")


def test_the_deviation_of_several_tasks_is_their_mean() -> None:
    tasks = [Deviation(0.1, 0.5, 1.0, 8), Deviation(0.3, 1.5, 0.5, 4)]
    assert mean_deviation(tasks) == Deviation(pytest.approx(0.2), pytest.approx(1.0), pytest.approx(0.75), 12)


@given(st.floats(0.1, 10), st.integers(0, 2**16))
def test_deviation_does_not_depend_on_the_unit(scale: float, seed: int) -> None:
    expected, found = np.random.default_rng(seed).standard_normal((2, 5, 3))
    one, other = deviation(expected, found), deviation(scale * expected, scale * found)
    assert (other.of_size, other.of_spread) == (pytest.approx(one.of_size), pytest.approx(one.of_spread))
    assert one.agreement == other.agreement


def test_pictures_are_the_same_for_a_seed_and_differ_among_each_other() -> None:
    first = pictures(6, 16, seed=3)
    assert first.shape == (6, 16, 16, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, pictures(6, 16, seed=3))
    means = first.mean(axis=(1, 2, 3))
    assert means.std() > 5
