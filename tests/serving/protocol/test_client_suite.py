"""What a client of the v2 protocol does, on three servers: ours with its own engine, ours in front of a Triton, and that Triton.

Where they are to differ, and why: differences.py for what is refused, and the tests below whose names say so.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
import tritonclient.utils.shared_memory as shm
from google.protobuf import json_format
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from benchmarks.studies.perf_analyzer.program import PerfAnalyzer, PerfAnalyzerUnavailable, fetch
from contract.repository import ALL_TASKS
from contract.repository.config import parse_text
from serving.local_triton.environment import set_up
from serving.local_triton.errors import TritonUnavailable
from serving.local_triton.local import LocalTriton, local_triton
from tests.serving.nets import CHAINS, LABELS, LAYERS, MAX_ROWS, images
from tests.serving.protocol.differences import DIFFERENCES, REFUSALS
from tests.serving.protocol.held_requests import wait_for
from tests.serving.protocol.three_servers import (
    OUTPUTS,
    PAIR,
    SEGMENTS,
    TASKS,
    Client,
    Face,
    bare,
    check,
    described,
    ours,
    outputs_of,
    settled,
    spec_of,
    whole,
    write_three,
)

pytestmark = pytest.mark.slow

ALL_OUTPUTS = [output for outputs in OUTPUTS.values() for output in outputs]
CHOICE = ["probe", "pair.right", "late"]  # neither in the order of names nor in that of the repository
_pb: Any = service_pb2


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_three(tmp_path_factory.mktemp("three") / "repo").path


@pytest.fixture(scope="module")
def triton(path: Path) -> Iterator[LocalTriton]:
    try:
        set_up()
    except TritonUnavailable as error:
        pytest.skip(str(error))
    with local_triton(path) as running:
        yield running


@pytest.fixture(scope="module", params=["embedded", "in front of Triton", "Triton"])
def clients(request: pytest.FixtureRequest, path: Path) -> Iterator[dict[str, Client]]:
    """Of one server after the other."""
    triton = None if request.param == "embedded" else request.getfixturevalue("triton")
    with nullcontext(bare(triton)) if request.param == "Triton" else ours(path, triton) as face:
        made = {protocol: Client(face, protocol) for protocol in ("http", "grpc")}
        yield made
        for client in made.values():
            client.client.close()


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, clients: dict[str, Client]) -> Client:
    return clients[request.param]


@pytest.fixture
def http(clients: dict[str, Client]) -> Client:
    return clients["http"]


@pytest.fixture
def face(http: Client) -> Face:
    return http.face


def test_health(client: Client) -> None:
    assert client.client.is_server_live()
    assert client.client.is_server_ready()
    for model in (*TASKS, *SEGMENTS, ALL_TASKS):
        assert client.client.is_model_ready(model)
        assert client.client.is_model_ready(model, "1")
    assert not client.client.is_model_ready("cats")
    assert not client.client.is_model_ready("probe", "9")


def test_what_the_server_says_of_itself(client: Client, face: Face) -> None:
    said = client.ask("get_server_metadata")
    offered = {
        "binary_tensor_data", "classification", "model_configuration", "model_repository", "schedule_policy", "statistics",
        "system_shared_memory",
    }  # fmt: skip
    if face.is_triton:  # ours has its own name, and offers part of what Triton does, in Triton's words
        assert said["name"] == "triton"
        assert offered < {*said["extensions"]}
    else:
        assert said["name"] == "espalier"
        assert {*said["extensions"]} == offered


@pytest.mark.parametrize("model", [*TASKS, ALL_TASKS, "trunk"])
def test_metadata(client: Client, model: str) -> None:
    said = client.ask("get_model_metadata", model, "1")
    sizes = {output: whole(output, images(1)).shape[1] for output in OUTPUTS.get(model, ALL_OUTPUTS)}
    platform, image = "ensemble", "image"
    if model == "trunk":
        sizes, platform, image = {"output": 7}, "onnxruntime_onnx", "input"
    assert (said["name"], said["versions"], said["platform"]) == (model, ["1"], platform)
    assert [spec_of(tensor) for tensor in said["inputs"]] == [(image, "UINT8", [-1, 8, 8, 3])]
    outputs = [spec_of(tensor) for tensor in said["outputs"]]
    assert outputs == [(name, "FP32", [-1, sizes[name]]) for name in sorted(sizes)]


@pytest.mark.parametrize("model", CHAINS)
def test_what_tritons_image_client_looks_for(client: Client, model: str) -> None:
    """One image in, its axes said, and one FP32 vector out, of which it asks for the best classes."""
    said, config = client.ask("get_model_metadata", model), client.ask("get_model_config", model)
    (tensor,), (output,) = said["inputs"], said["outputs"]
    (configured,) = config["input"]
    assert (output["datatype"], len(output["shape"]), int(config["max_batch_size"]) > 0) == ("FP32", 2, True)
    assert configured["format"] == "FORMAT_NHWC"
    rows, height, width, channels = map(int, tensor["shape"])
    images_for_it = np.zeros((2, height, width, channels), triton_to_np_dtype(tensor["datatype"]))
    assert (rows, channels) == (-1, 3)
    best = client.infer(model, images_for_it, [output["name"]], name=tensor["name"], classes=1).as_numpy(output["name"])
    for (row,) in best:
        value, place, *label = row.decode().split(":")
        assert whole(model, images_for_it)[0, int(place)] == pytest.approx(float(value), rel=1e-4, abs=1e-5)
        assert label == [LABELS[model][int(place)]] if model in LABELS else not label


@pytest.mark.parametrize("model", [*TASKS, ALL_TASKS])
def test_an_ensembles_configuration_is_what_was_written(client: Client, path: Path, model: str) -> None:
    found, written = _config(client, path, model)
    assert found.HasField("model_transaction_policy")  # perf_analyzer asks whether it answers several times
    for field in ("model_transaction_policy", "version_policy"):  # which Triton fills in
        found.ClearField(field)
    assert found == written


def test_a_segments_configuration_is_what_was_written_but_for_what_triton_fills_in(client: Client, path: Path) -> None:
    found, written = _config(client, path, "trunk")
    for field in ("name", "max_batch_size", "input", "output", "backend", "parameters"):
        assert getattr(found, field) == getattr(written, field)


def _config(client: Client, path: Path, model: str) -> tuple[Any, Any]:
    written = parse_text((path / model / "config.pbtxt").read_text(), model)
    return json_format.ParseDict(client.ask("get_model_config", model), type(written)()), written


def test_index(client: Client) -> None:
    index = client.ask("get_model_repository_index")
    assert {entry["name"]: (entry["version"], entry["state"]) for entry in index} == dict.fromkeys(
        (*TASKS, *SEGMENTS, ALL_TASKS), ("1", "READY")
    )


def test_trace_and_log_settings_can_be_read(client: Client) -> None:
    trace, logging = client.ask("get_trace_settings", "probe"), client.ask("get_log_settings")
    if not client.is_http:
        trace = {name: setting["value"] for name, setting in trace["settings"].items() if "value" in setting}
        logging = {name: next(iter(setting.values())) for name, setting in logging["settings"].items()}
    assert trace["trace_level"] == ["OFF"]
    assert {"trace_rate", "trace_count", "log_frequency", "trace_mode"} <= trace.keys()
    assert logging["log_info"] is True
    assert {"log_file", "log_warning", "log_error", "log_verbose_level", "log_format"} <= logging.keys()


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_every_task_is_a_model(client: Client, rows: int) -> None:
    """More rows than a run takes go in parts to Triton itself, and whole to ours."""
    for task in TASKS:
        takes = min(rows, MAX_ROWS) if client.face.is_triton else rows
        done = 0
        for part in np.split(images(rows), range(takes, rows, takes)):
            result = client.infer(task, part, request_id=f"{task}-{rows}")
            head = described(result)
            assert (head["model_name"], head["model_version"], head["id"]) == (task, "1", f"{task}-{rows}")
            for output in OUTPUTS[task]:
                expected = whole(output, images(rows))[done : done + len(part)]
                np.testing.assert_allclose(result.as_numpy(output), expected, rtol=1e-4, atol=1e-5)
            done += len(part)
        assert done == rows


@pytest.mark.parametrize("outputs", [["late"], CHOICE, [*reversed(ALL_OUTPUTS)], []], ids=["one", "some", "all", "unnamed"])
def test_a_choice_ofoutputs_of(client: Client, outputs: list[str]) -> None:
    result = client.infer(ALL_TASKS, images(2), outputs)
    check(result, 2, outputs or ALL_OUTPUTS)
    if not client.face.is_triton:  # Triton's ensembles answer in the order in which they are done
        assert [name for name, _, _ in described(result)["outputs"]] == (outputs or sorted(ALL_OUTPUTS))


def test_a_segment_is_a_model(client: Client) -> None:
    found = client.infer("trunk", images(3), name="input").as_numpy("output")
    np.testing.assert_allclose(found, LAYERS["trunk"](images(3)), rtol=1e-4, atol=1e-5)


def test_the_best_classes_have_their_labels(client: Client) -> None:
    for model in ("probe", ALL_TASKS):
        result = client.infer(model, images(3), ["probe"], classes=2)
        assert described(result)["outputs"] == [("probe", "BYTES", (3, 2))]
        for texts, scores in zip(result.as_numpy("probe"), whole("probe", images(3)), strict=True):
            order = np.argsort(-scores)[:2]
            assert [text.decode().split(":")[1:] for text in texts] == [[str(i), LABELS["probe"][i]] for i in order]
            assert [float(text.split(b":")[0]) for text in texts] == pytest.approx(scores[order], abs=1e-4)


def test_classes_without_labels_and_more_than_there_are(client: Client) -> None:
    (texts,) = client.infer("parity", images(1), ["parity"], classes=9).as_numpy("parity")
    assert [text.decode().split(":")[1:] for text in texts] == [[str(i)] for i in np.argsort(-whole("parity", images(1))[0])]
    assert described(client.infer(PAIR, images(1), ["pair.right"], classes=2))["outputs"] == [("pair.right", "BYTES", (1, 2))]


def test_tensors_as_json(http: Client) -> None:
    result = http.infer(ALL_TASKS, images(2), CHOICE, binary=False)
    check(result, 2, CHOICE)
    assert all("data" in output for output in result.get_response()["outputs"])
    texts = http.infer("probe", images(1), ["probe"], classes=1, binary=False).get_output("probe")["data"]
    assert texts[0].endswith(f":{LABELS['probe'][int(whole('probe', images(1)).argmax())]}")


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_bodies(client: Client, compression: str) -> None:
    options = {"compression_algorithm": compression}
    if client.is_http:
        options = {f"{way}_compression_algorithm": compression for way in ("request", "response")}
    check(client.infer(PAIR, images(6), **options), 6, OUTPUTS[PAIR])


def test_typed_contents_over_grpc(clients: dict[str, Client]) -> None:
    request = _pb.ModelInferRequest(model_name="late", id="typed")
    request.inputs.add(name="image", datatype="UINT8", shape=[2, 8, 8, 3], contents={"uint_contents": images(2).ravel().tolist()})
    answer = clients["grpc"].message(request)
    found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(2, 4)
    np.testing.assert_allclose(found, whole("late", images(2)), rtol=1e-4, atol=1e-5)
    assert answer.id == "typed"


def test_streams_answer_in_order_and_survive_errors(face: Face) -> None:
    answers: list[tuple[Any, Any]] = []
    with tritonclient.grpc.InferenceServerClient(face.grpc) as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        for number, model in enumerate((PAIR, "cats", "late")):
            tensor = tritonclient.grpc.InferInput("image", [1, 8, 8, 3], "UINT8")
            tensor.set_data_from_numpy(images(1))
            client.async_stream_infer(model, [tensor], request_id=str(number))
        client.stop_stream()
    (first, _), (_, error), (last, _) = answers
    check(first, 1, OUTPUTS[PAIR])
    check(last, 1, ["late"])
    assert (first.get_response().id, last.get_response().id) == ("0", "2")
    assert last.get_response().parameters["triton_final_response"].bool_param
    assert "cats" in error.message()


@pytest.mark.parametrize("module", [tritonclient.http.aio, tritonclient.grpc.aio], ids=["http", "grpc"])
def test_the_asynchronous_clients(module: ModuleType, face: Face) -> None:
    async def work() -> None:
        address = face.http if module is tritonclient.http.aio else face.grpc
        async with module.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready(PAIR)
            assert not await client.is_model_ready("cats")
            tensor = module.InferInput("image", [3, 8, 8, 3], "UINT8")
            tensor.set_data_from_numpy(images(3))
            wanted = [module.InferRequestedOutput(output) for output in CHOICE]
            for result in await asyncio.gather(*(client.infer(ALL_TASKS, [tensor], outputs=wanted) for _ in range(4))):
                for output in CHOICE:
                    np.testing.assert_allclose(result.as_numpy(output), whole(output, images(3)), rtol=1e-4, atol=1e-5)
            with pytest.raises(InferenceServerException) as caught:
                await client.infer("cats", [tensor])
            assert caught.value.status() in ("404", "StatusCode.NOT_FOUND")

    asyncio.run(work())


def test_system_shared_memory(client: Client) -> None:
    name, rows, size = f"espalier-{uuid.uuid4().hex}", images(2), 4096
    handle = shm.create_shared_memory_region(name, f"/{name}", size)
    try:
        client.client.unregister_cuda_shared_memory()  # as Triton's examples begin
        client.client.register_system_shared_memory(name, f"/{name}", size)
        shm.set_shared_memory_region(handle, [rows], offset=64)
        tensor = client.module.InferInput("image", list(rows.shape), "UINT8")
        tensor.set_shared_memory(name, rows.nbytes, offset=64)
        wanted = client.module.InferRequestedOutput("late")
        wanted.set_shared_memory(name, 32, offset=2048)
        (output,) = outputs_of(client.client.infer("late", [tensor], outputs=[wanted]))
        assert output.keys() == {"name", "datatype", "shape"}
        assert spec_of(output) == ("late", "FP32", [2, 4])
        found = shm.get_contents_as_numpy(handle, np.float32, [2, 4], offset=2048)
        np.testing.assert_allclose(found, whole("late", rows), rtol=1e-4, atol=1e-5)
        assert name in str(client.ask("get_system_shared_memory_status"))
        client.client.unregister_system_shared_memory(name)
        assert client.outcome(lambda client: client.client.infer("late", [tensor])) in ("404", "NOT_FOUND")
    finally:
        shm.destroy_shared_memory_region(handle)


def test_successes_are_counted_alike(client: Client) -> None:
    """Of what is asked for, and of the segments that it takes."""
    models = ("probe", "trunk", "head-probe", "head-colour")
    before = settled(client, models)
    for rows in (1, 3, 6):
        client.infer("probe", images(rows))
    client.infer(ALL_TASKS, images(2), ["probe", "late"])
    three, four = (3, 3, 10), (4, 4, 12)
    expected = {"probe": three, "trunk": four, "head-probe": four, "head-colour": (0, 0, 0)}

    def grown() -> dict[str, tuple[int, ...]]:
        now = client.counts(*models)
        return {name: tuple(new - old for new, old in zip(now[name], before[name], strict=True)) for name in models}

    wait_for(lambda: grown()["head-probe"] == four and grown()["probe"] == three)
    wait_for(lambda: grown() == expected)


def test_counts_of_durations_are_requests_on_each_stream(client: Client) -> None:
    models = (ALL_TASKS, "trunk", "suffix")
    durations = ("success", "queue", "compute_input", "compute_infer", "compute_output")

    def counts() -> dict[str, list[int]]:
        entries = client.ask("get_inference_statistics")["model_stats"]
        return {
            entry["name"]: [int(entry["inference_stats"].get(name, {}).get("count", 0)) for name in durations]
            for entry in entries
            if entry["name"] in models
        }

    settled(client, models)
    before = counts()
    client.infer(ALL_TASKS, images(2), ["colour", "parity"])
    grown = {ALL_TASKS: 1, "trunk": 1, "suffix": 2}
    wait_for(lambda: counts() == {name: [count + grown[name] for count in found] for name, found in before.items()})


@pytest.fixture(scope="module")
def perf_analyzer() -> PerfAnalyzer:
    try:
        return fetch(timeout_s=30)
    except PerfAnalyzerUnavailable as error:
        pytest.skip(str(error))


# Not --request-count: the program forgets what was answered before it began to count, and then waits for ever.
MEASURES = (
    "--measurement-mode",
    "count_windows",
    "--measurement-request-count",
    "20",
    "--stability-percentage",
    "999",
    "--max-trials",
    "3",
)


@pytest.mark.parametrize(("protocol", "model"), [("http", ALL_TASKS), ("grpc", "trunk")])
def test_perf_analyzer_runs_through(perf_analyzer: PerfAnalyzer, face: Face, protocol: str, model: str) -> None:
    address = face.http if protocol == "http" else face.grpc
    said = perf_analyzer.run("-m", model, "-i", protocol, "-u", address, "--concurrency-range", "2", *MEASURES)
    by_clients, by_server = said.split("  Server: ")
    (count,) = re.findall(r"Request count: (\d+)", by_clients)
    assert int(count) >= 60  # of three windows
    assert re.search(r"Successful request count: [1-9]", by_server)
    assert ("Composing models:" in by_server) == (model == ALL_TASKS)


def test_refused_requests_count_as_failed_with_ours_alone(client: Client) -> None:
    def failed() -> int:
        (entry,) = client.ask("get_inference_statistics", "parity")["model_stats"]
        return int(entry["inference_stats"]["fail"].get("count", 0))

    before = failed()
    assert client.outcome(lambda client: client.infer("parity", images(1)[0])) != "OK"
    if client.face.is_triton:
        assert failed() == before == 0
    else:
        wait_for(lambda: failed() == before + 1)


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_refused_is_refused_alike(client: Client, case: str) -> None:
    ask, codes = REFUSALS[case]
    if codes.of(client) is not None:
        assert client.outcome(ask) == codes.of(client)


@pytest.mark.parametrize("case", DIFFERENCES)
def test_where_they_differ(client: Client, case: str) -> None:
    difference = DIFFERENCES[case]
    expected = (difference.triton if client.face.is_triton else difference.ours).of(client)
    if expected is not None:
        assert client.outcome(difference.ask) == expected
