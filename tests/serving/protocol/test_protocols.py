"""tritonclient, unchanged, against a real server: HTTP and gRPC give the same answers and the same refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from google.protobuf import json_format
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from contract.repository import ALL_TASKS, Repository
from serving.server import BackgroundServer, Server
from tests.serving.nets import CHAINS, LAYERS, TASK_NAMES, images, whole
from tests.serving.protocol.test_shared_memory import check_no_regions

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute


class Client:
    """One of tritonclient's two modules, and a client of it; the answers of gRPC as the dictionaries that HTTP gives."""

    def __init__(self, module: ModuleType, server: BackgroundServer) -> None:
        self.module = module
        self.is_http = module is tritonclient.http
        self.client = module.InferenceServerClient(server.http_address if self.is_http else server.grpc_address)

    def infer(
        self, model: str, rows: Any, outputs: Sequence[str] = (), name: str = "image", dtype: str = "UINT8", **options: Any
    ) -> Any:
        tensor = self.module.InferInput(name, list(rows.shape), dtype)
        tensor.set_data_from_numpy(rows)
        wanted = [self.module.InferRequestedOutput(output) for output in outputs] or None
        return self.client.infer(model, [tensor], outputs=wanted, **options)

    def ask(self, method: str, *arguments: Any) -> Any:
        return getattr(self.client, method)(*arguments, **({} if self.is_http else {"as_json": True}))

    def runs(self) -> dict[str, int]:
        stats = self.ask("get_inference_statistics")["model_stats"]
        return {entry["name"]: int(entry.get("execution_count", 0)) for entry in stats}

    def status(self, http: str, grpc: str) -> str:
        return http if self.is_http else f"StatusCode.{grpc}"


@pytest.fixture(params=[tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: BackgroundServer) -> Iterator[Client]:
    made = Client(request.param, server)
    yield made
    made.client.close()


def test_health(client: Client) -> None:
    assert client.client.is_server_live()
    assert client.client.is_server_ready()
    for model in (*TASK_NAMES, ALL_TASKS, "trunk"):
        assert client.client.is_model_ready(model)
        assert client.client.is_model_ready(model, "1")


def test_metadata(client: Client) -> None:
    server = client.ask("get_server_metadata")
    assert server["name"] == "espalier"
    assert "classification" in server["extensions"]
    model = client.ask("get_model_metadata", ALL_TASKS)
    assert (model["name"], model["versions"], model["platform"]) == (ALL_TASKS, ["1"], "ensemble")
    (image,) = model["inputs"]
    assert (image["name"], image["datatype"], [int(size) for size in image["shape"]]) == ("image", "UINT8", [-1, 8, 8, 3])
    assert {output["name"]: int(output["shape"][1]) for output in model["outputs"]} == {
        "probe": 3, "colour": 3, "parity": 2, "late": 4
    }  # fmt: skip


def test_config_and_index(client: Client) -> None:
    config = client.ask("get_model_config", "probe")
    config = config if client.is_http else config["config"]
    assert config["max_batch_size"] == 6
    assert [step["model_name"] for step in config["ensemble_scheduling"]["step"]] == list(CHAINS["probe"])
    index = client.ask("get_model_repository_index")
    entries = index if client.is_http else index["models"]
    assert {entry["name"] for entry in entries} == {*TASK_NAMES, *LAYERS, ALL_TASKS}
    assert {entry["state"] for entry in entries} == {"READY"}


def test_http_writes_messages_as_triton_does(server: BackgroundServer) -> None:
    """The JSON reads back as the protobuf message, and 64-bit integers are numbers."""
    client = Client(tritonclient.http, server)
    config = client.ask("get_model_config", "probe")
    assert config["input"][0]["dims"] == [8, 8, 3]
    parsed = json_format.ParseDict(config, service_pb2.ModelConfigResponse().config)
    assert parsed.ensemble_scheduling.step[0].input_map["input"] == "image"
    stats = client.ask("get_inference_statistics", "trunk")
    json_format.ParseDict(stats, service_pb2.ModelStatisticsResponse())
    durations = stats["model_stats"][0]["inference_stats"]
    assert {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output"} <= durations.keys()
    assert all(type(duration["ns"]) is int for duration in durations.values())
    client.client.close()


@pytest.mark.parametrize("tasks", [("late",), ("parity", "probe"), TASK_NAMES, ()], ids=["one", "some", "all", "unnamed"])
def test_the_trunk_runs_once_and_unrequested_branches_do_not(client: Client, tasks: tuple[str, ...]) -> None:
    before = client.runs()
    result = client.infer(ALL_TASKS, images(2), tasks, request_id="42")
    after = client.runs()
    wanted = tasks or TASK_NAMES
    for task in wanted:
        np.testing.assert_allclose(result.as_numpy(task), whole(task, images(2)), rtol=1e-4, atol=1e-5)
    ran = {name: after[name] - before[name] for name in LAYERS if after[name] != before[name]}
    assert ran == dict.fromkeys({segment for task in wanted for segment in CHAINS[task]}, 1)
    response = client.ask("get_inference_statistics", ALL_TASKS)["model_stats"][0]
    assert int(response["inference_count"]) >= 2
    header = result.get_response() if client.is_http else result.get_response(as_json=True)
    assert header["id"] == "42"
    if tasks:
        assert [output["name"] for output in header["outputs"]] == list(tasks)


def test_every_task_and_segment_is_a_model(client: Client) -> None:
    for task in TASK_NAMES:
        np.testing.assert_allclose(client.infer(task, images(1)).as_numpy(task), whole(task, images(1)), rtol=1e-4, atol=1e-5)
    features = client.infer("trunk", images(1), name="input").as_numpy("output")
    np.testing.assert_allclose(features, LAYERS["trunk"](images(1)), rtol=1e-4, atol=1e-5)


def test_more_rows_than_a_run_takes_are_split(client: Client) -> None:
    answer = client.infer("late", images(20), model_version="1").as_numpy("late")
    np.testing.assert_allclose(answer, whole("late", images(20)), rtol=1e-4, atol=1e-5)


def test_classification(client: Client) -> None:
    wanted = [client.module.InferRequestedOutput("colour", class_count=2)]
    tensor = client.module.InferInput("image", [1, 8, 8, 3], "UINT8")
    tensor.set_data_from_numpy(images(1))
    (first, second) = client.client.infer("colour", [tensor], outputs=wanted).as_numpy("colour")[0]
    order = np.argsort(-whole("colour", images(1))[0])
    assert first.decode().split(":")[1:] == [str(order[0]), ("red", "green", "blue")[order[0]]]
    assert second.decode().split(":")[1] == str(order[1])


REFUSALS = {
    "model": (("cats", images(1)), "404", "NOT_FOUND", "Unknown model 'cats'; known are: all_tasks, colour"),
    "task": ((ALL_TASKS, images(1), ["cats"]), "400", "INVALID_ARGUMENT", "Unknown task 'cats'; known are: colour"),
    "output": (("probe", images(1), ["late"]), "400", "INVALID_ARGUMENT", "has no output 'late'; it gives 'probe'"),
    "input": (("probe", images(1), (), "x"), "400", "INVALID_ARGUMENT", "has no input 'x'; it takes input 'image'"),
    "dtype": (
        ("probe", images(1).astype(np.float32), (), "image", "FP32"), "400", "INVALID_ARGUMENT", "is FP32, but model 'probe' takes",
    ),
    "shape": (("probe", images(1)[:, :4]), "400", "INVALID_ARGUMENT", "has shape [1, 4, 8, 3], but model 'probe' takes"),
    "rank": (("probe", images(1)[0]), "400", "INVALID_ARGUMENT", "has shape [8, 8, 3], but model 'probe' takes"),
    "no rows": (("probe", images(0)), "400", "INVALID_ARGUMENT", "The input has no rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_gets_one_sentence_and_the_right_status(client: Client, case: str) -> None:
    arguments, http, grpc, words = REFUSALS[case]
    with pytest.raises(InferenceServerException) as caught:
        client.infer(*arguments)
    assert caught.value.status() == client.status(http, grpc)
    message = caught.value.message()
    assert words in message
    assert message.endswith(".")
    assert "\n" not in message


def test_unknown_versions_are_not_found(client: Client) -> None:
    for method in ("get_model_metadata", "get_model_config", "get_inference_statistics"):
        with pytest.raises(InferenceServerException, match="Unknown version '9' of model 'probe'; known are: 1") as caught:
            client.ask(method, "probe", "9")
        assert caught.value.status() == client.status("404", "NOT_FOUND")


def test_what_is_not_offered_says_so(client: Client) -> None:
    for method in (client.client.load_model, client.client.unload_model):
        with pytest.raises(InferenceServerException, match="is not offered by this server") as caught:
            method("probe")
        assert caught.value.status() == client.status("501", "UNIMPLEMENTED")
    check_no_regions(client.client, "system", "region", "/key", 10)
    check_no_regions(client.client, "cuda", "region", b"aGFuZGxl", 0, 10)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_http_compression_both_ways(server: BackgroundServer, compression: str) -> None:
    client = Client(tritonclient.http, server)
    options = {"request_compression_algorithm": compression, "response_compression_algorithm": compression}
    result = client.infer("late", images(200), **options)  # large enough for the answer to be worth compressing
    np.testing.assert_allclose(result.as_numpy("late"), whole("late", images(200)), rtol=1e-4, atol=1e-5)
    client.client.close()


def test_http_json_both_ways(server: BackgroundServer) -> None:
    client = tritonclient.http.InferenceServerClient(server.http_address)
    tensor = tritonclient.http.InferInput("image", [2, 8, 8, 3], "UINT8")
    tensor.set_data_from_numpy(images(2), binary_data=False)
    wanted = [
        tritonclient.http.InferRequestedOutput("late", binary_data=False),
        tritonclient.http.InferRequestedOutput("probe", binary_data=False, class_count=1),
        tritonclient.http.InferRequestedOutput("colour"),
    ]
    result = client.infer(ALL_TASKS, [tensor], outputs=wanted)
    for task in ("late", "colour"):
        np.testing.assert_allclose(result.as_numpy(task), whole(task, images(2)), rtol=1e-4, atol=1e-5)
    assert "data" in result.get_output("probe")
    client.close()


def grpc_request(**tensor: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name="late")
    request.inputs.add(name="image", datatype="UINT8", shape=[1, 8, 8, 3], **tensor)
    return request


def test_grpc_typed_contents(server: BackgroundServer) -> None:
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        stub = client._client_stub
        response = stub.ModelInfer(grpc_request(contents={"uint_contents": images(1).ravel().tolist()}))
        np.testing.assert_allclose(
            np.frombuffer(response.raw_output_contents[0], np.float32), whole("late", images(1))[0], rtol=1e-4
        )
        both = grpc_request(contents={"uint_contents": [1]})
        both.raw_input_contents.append(b"\x01")
        mixed = grpc_request()
        mixed.raw_input_contents.extend([b"", b""])
        for request, words in (
            (grpc_request(contents={"fp32_contents": [1.0]}), "comes in fp32_contents; use uint_contents"),
            (grpc_request(contents={"uint_contents": [256] * 192}), "values that are not UINT8"),
            (grpc_request(), "takes 192 values, but 0 were sent"),
            (both, "both raw and typed contents"),
            (mixed, "1 inputs, but 2 raw_input_contents"),
        ):
            with pytest.raises(Exception, match=words) as caught:
                stub.ModelInfer(request)
            assert caught.value.code().name == "INVALID_ARGUMENT"  # type: ignore[attr-defined]


def test_grpc_streams_answer_in_order_and_survive_errors(server: BackgroundServer) -> None:
    answers: list[tuple[Any, Any]] = []
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        for number, model in enumerate(("late", "cats", "probe")):
            tensor = tritonclient.grpc.InferInput("image", [1, 8, 8, 3], "UINT8")
            tensor.set_data_from_numpy(images(1))
            client.async_stream_infer(model, [tensor], request_id=str(number))
        client.stop_stream()
    assert [result.get_response().id for result, error in answers if error is None] == ["0", "2"]
    assert "Unknown model 'cats'" in answers[1][1].message()


def test_grpc_refuses_messages_over_the_limit(repository: Repository) -> None:
    with BackgroundServer(repository, http_port=0, grpc_port=0, threads=1, max_body_bytes=10_000) as server:
        client = Client(tritonclient.grpc, server)
        with pytest.raises(InferenceServerException) as caught:
            client.infer("late", images(60))
        assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        client.client.close()


@pytest.mark.parametrize("module", [tritonclient.http.aio, tritonclient.grpc.aio], ids=["http", "grpc"])
def test_the_asynchronous_clients(module: ModuleType, repository: Repository) -> None:
    async def work() -> None:
        async with Server(repository, http_port=0, grpc_port=0, threads=1) as server:
            address = server.http_address if module is tritonclient.http.aio else server.grpc_address
            async with module.InferenceServerClient(address) as client:
                assert await client.is_server_ready()
                tensor = module.InferInput("image", [200, 8, 8, 3], "UINT8")
                tensor.set_data_from_numpy(images(200))
                results = await asyncio.gather(*(client.infer(ALL_TASKS, [tensor]) for _ in range(4)))
                for result in results:
                    np.testing.assert_allclose(result.as_numpy("late"), whole("late", images(200)), rtol=1e-4, atol=1e-5)
                with pytest.raises(InferenceServerException, match="Unknown model"):
                    await client.infer("cats", [tensor])

    asyncio.run(work())
