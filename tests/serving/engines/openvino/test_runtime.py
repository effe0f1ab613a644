"""Segments on OpenVINO: the answers of ONNX Runtime, and ONNX Runtime for what OpenVINO does not run."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from contract.errors import RepositoryError
from contract.plan import make_plan
from contract.repository import Repository, Segment, TensorSpec, read_repository
from contract.repository.free_sizes import FreeSize
from serving.engines.embedded import EmbeddedEngine
from serving.engines.onnxruntime.runtime import OnnxRuntime
from serving.engines.openvino.runtime import Elsewhere, OpenVinoRuntime
from serving.engines.openvino.session import OpenVinoSession
from serving.engines.sessions.runtime import Precision, SegmentFile, SessionStoreOptions
from serving.engines.sessions.store import SessionStore
from serving.errors import EngineError, SegmentTooLarge
from tests.serving.engines.openvino.large import OPENVINO, engine_on, write_large, write_segment
from tests.serving.nets import LAYERS, TASK_NAMES, images, whole

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return write_large(tmp_path_factory.mktemp("large") / "repo")


def answers(engine: EmbeddedEngine, tasks: Sequence[str], rows: int) -> Mapping[str, np.ndarray]:
    async def infer() -> Mapping[str, np.ndarray]:
        await engine.start()
        try:
            answer = await engine.infer(make_plan(engine._repository, tasks), {"image": images(rows)})
        finally:
            await engine.aclose()
        assert not answer.errors
        return answer.outputs

    return asyncio.run(infer())


def runtime(options: SessionStoreOptions = OPENVINO, instances: int = 1) -> OpenVinoRuntime:
    return OpenVinoRuntime(options, OnnxRuntime(options), instances)


def file_of(repository: Repository, name: str) -> SegmentFile:
    return SegmentFile(repository.segments[name], repository.model_file(name))


@pytest.mark.parametrize("rows", [1, 5])
def test_it_answers_as_the_whole_networks(large: Repository, rows: int) -> None:
    found = answers(engine_on(large), TASK_NAMES, rows)
    for task in TASK_NAMES:
        np.testing.assert_allclose(found[task], whole(task, images(rows)), rtol=1e-4, atol=1e-5)


def test_openvino_runs_what_is_large_and_onnx_runtime_what_is_small_and_the_log_counts_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repository = write_large(tmp_path / "repo")
    small = replace(repository.segments["head-probe"], macs=15)
    repository = replace(repository, segments={**repository.segments, "head-probe": small})
    made = runtime()
    with caplog.at_level(logging.INFO):
        made.prepare(repository, [file_of(repository, name) for name in repository.segments])
    kinds = {name: type(made.load(file_of(repository, name))) for name in repository.segments}
    assert kinds.pop("head-probe") is Elsewhere
    assert set(kinds.values()) == {OpenVinoSession}
    assert "in bf16, 8 in fp32, 1 on ONNX Runtime" in caplog.text


def test_what_openvino_has_no_operator_for_runs_on_onnx_runtime_and_the_log_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "repo"
    write_large(path)
    write_segment(path, "mid", with_distances(LAYERS["mid"].model()))
    with caplog.at_level(logging.WARNING):
        found = answers(engine_on(read_repository(path)), ["probe"], 3)
    np.testing.assert_allclose(found["probe"], whole("probe", images(3)), rtol=1e-4, atol=1e-5)
    assert "Segment 'mid' runs on ONNX Runtime: OpenVINO has no com.microsoft.CDist." in caplog.text


def test_what_openvino_lacks_is_found_also_where_an_earlier_process_has_checked_it_and_is_checked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = OnnxRuntime.load
    monkeypatch.setattr(OnnxRuntime, "load", lambda self, file: loaded.append(file.segment.name) or load(self, file))
    path = tmp_path / "repo"
    write_large(path, records=False)
    write_segment(path, "mid", with_distances(LAYERS["mid"].model()))
    made, file = runtime(), file_of(read_repository(path), "mid")
    assert isinstance(made.open(file), Elsewhere)
    assert loaded == ["mid"]
    assert isinstance(made.open(file), Elsewhere)
    assert loaded == ["mid"], "it is known now"
    assert made.computed_by(file.segment).startswith("onnxruntime ")


def with_distances(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with 0 added: a sum of distances between weights, by an operator that OpenVINO lacks, times 0."""
    model.graph.node[-1].output[0] = "bent"
    model.graph.node.extend(
        [
            helper.make_node("CDist", ["weight", "weight"], ["distances"], domain="com.microsoft", metric="euclidean"),
            helper.make_node("ReduceSum", ["distances"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
            helper.make_node("Add", ["bent", "nothing"], ["output"]),
        ]
    )
    model.graph.initializer.append(helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


@pytest.mark.parametrize("content", [b"", b"no model"])
def test_a_damaged_model_file_is_named_without_its_path(tmp_path: Path, content: bytes) -> None:
    repository = write_large(tmp_path / "repo")
    repository.model_file("mid").write_bytes(content)
    with pytest.raises(RepositoryError, match=r"Segment 'mid' cannot be loaded.*export the repository again") as caught:
        answers(engine_on(repository), ["probe"], 1)
    assert str(tmp_path) not in str(caught.value)


def test_inputs_of_another_shape_fail_the_run(large: Repository) -> None:
    store = SessionStore(runtime())
    store.open([file_of(large, "mid")])
    with pytest.raises(EngineError, match="Segment 'mid' failed on 2 rows"):
        store.run("mid", [np.zeros((2, 8), np.float32)])
    np.testing.assert_allclose(store.run("mid", [np.ones((2, 7), np.float32)])[0], LAYERS["mid"](np.ones((2, 7))), atol=1e-5)
    store.close_all()


@pytest.mark.parametrize("instances", [1, 2])
def test_many_threads_get_the_answers_to_what_they_asked(large: Repository, instances: int) -> None:
    made = runtime(instances=instances)
    session = made.load(file_of(large, "mid"))
    asked = [np.random.default_rng(seed).normal(size=(1 + seed % 5, 7)).astype(np.float32) for seed in range(60)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda rows: made.run(large.segments["mid"], session, [rows])[0], asked))
    for rows, answer in zip(asked, found, strict=True):
        np.testing.assert_allclose(answer, LAYERS["mid"](rows), atol=1e-5)


def test_an_answer_stays_when_the_next_comes(large: Repository) -> None:
    made = runtime()
    session, segment = made.load(file_of(large, "mid")), large.segments["mid"]
    first = made.run(segment, session, [np.ones((2, 7), np.float32)])[0]
    kept = first.copy()
    made.run(segment, session, [np.zeros((2, 7), np.float32)])
    np.testing.assert_array_equal(first, kept)


def test_what_a_message_holds_may_not_be_written_and_is_answered_all_the_same(large: Repository) -> None:
    made = runtime()
    rows = np.frombuffer(np.ones((2, 7), np.float32).tobytes(), np.float32).reshape(2, 7)
    found = made.run(large.segments["mid"], made.load(file_of(large, "mid")), [rows])[0]
    np.testing.assert_allclose(found, LAYERS["mid"](rows), atol=1e-5)


def test_a_memory_limit_closes_what_is_unused_and_answers_all(large: Repository) -> None:
    sizes = {name: runtime().memory_of(file_of(large, name)) for name in large.segments}
    limit = sum(sorted(sizes.values())[-3:])
    engine = engine_on(large, replace(OPENVINO, memory_limit_bytes=limit))

    async def infer() -> None:
        await engine.start()
        try:
            for task in TASK_NAMES:
                answer = await engine.infer(make_plan(large, [task]), {"image": images(2)})
                np.testing.assert_allclose(answer.outputs[task], whole(task, images(2)), rtol=1e-4, atol=1e-5)
                assert sum(engine.loaded().values()) <= limit
        finally:
            await engine.aclose()

    asyncio.run(infer())


def test_packed_weights_are_counted(large: Repository) -> None:
    file = file_of(large, "trunk")
    assert runtime().memory_of(file) - OnnxRuntime(OPENVINO).memory_of(file) > file.kept.bytes
    with pytest.raises(SegmentTooLarge, match="'trunk' needs about"):
        SessionStore(runtime(), memory_limit_bytes=1000).open([file])


def test_sizes_that_requests_choose(tmp_path: Path) -> None:
    """y = x (rows, length, 3) times a matrix, of two lengths after one another."""
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["output"])],
        "free",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", "length", 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", "length", 2])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    file = tmp_path / "free/1/model.onnx"
    file.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]), file)
    specs = [TensorSpec(name, "FP32", (-1, size), axes=("length", "")) for name, size in (("input", 3), ("output", 2))]
    segment = Segment("free", (specs[0],), (specs[1],), (0, 0), "", 4, sizes={"length": FreeSize(4, 1, 9)})
    made = runtime()
    session = made.load(SegmentFile(segment, file))
    assert isinstance(session, OpenVinoSession)
    for rows, length in ((2, 5), (1, 9), (2, 5)):
        given = np.random.default_rng(length).normal(size=(rows, length, 3)).astype(np.float32)
        np.testing.assert_allclose(made.run(segment, session, [given])[0], given @ weight, atol=1e-5)


def test_weights_that_lie_beside_the_model_are_read(tmp_path: Path) -> None:
    repository = write_large(tmp_path / "repo")
    file = repository.model_file("mid")
    onnx.save(LAYERS["mid"].model(), file, save_as_external_data=True, location="weights-0123456789abcdef.bin", size_threshold=0)
    assert (file.parent / "weights-0123456789abcdef.bin").stat().st_size > 0
    made = runtime(replace(OPENVINO, cache_folder=tmp_path / "cache"))
    session = made.load(file_of(repository, "mid"))
    rows = np.ones((2, 7), np.float32)
    assert isinstance(session, OpenVinoSession)
    np.testing.assert_allclose(made.run(repository.segments["mid"], session, [rows])[0], LAYERS["mid"](rows), atol=1e-5)


def test_without_the_package_one_sentence_names_the_extra(large: Repository) -> None:
    program = (
        "import sys; sys.modules['openvino'] = None\n"
        "from serving.engines.embedded import EmbeddedEngine, EngineOptions\n"
        "from serving.engines.sessions.runtime import RuntimeKind, SessionStoreOptions\n"
        "from contract.repository import read_repository\n"
        "try: EmbeddedEngine(read_repository(sys.argv[1]), options=EngineOptions(SessionStoreOptions(runtime=RuntimeKind.openvino)))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(large.path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == (
        "ExtraNeeded Segments on OpenVINO need the package 'openvino', which is not installed; run: pip install 'espalier[openvino]'.\n"
    )


def test_options_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="OpenVINO has no execution provider 'cuda'"):
        replace(OPENVINO, provider="cuda")
    with pytest.raises(ValueError, match="ONNX Runtime computes as the model says, not in precision 'bf16'"):
        SessionStoreOptions(precision=Precision.bf16)
