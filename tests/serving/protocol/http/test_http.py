"""HTTP without a client library: images, and errors that are always {"error": sentence}."""

from __future__ import annotations

import gzip
import http.client
import http.server
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from contract.errors import InvalidRequest
from contract.repository import Repository
from espalier.cli import app
from serving.answers.classes import softmax
from serving.client import control_model, predict
from serving.engines.in_memory import InMemoryEngine
from serving.errors import RequestRefused, ServerUnreachable
from serving.server import BackgroundServer
from tests.serving.nets import CHAINS, LAYERS, TASK_NAMES, images, whole


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = png(images(1)[0])


class Http:
    """One connection; every answer's JSON."""

    def __init__(self, server: BackgroundServer) -> None:
        self.connection = http.client.HTTPConnection(server.http_address, timeout=20)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        self.connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.fixture
def ask(server: BackgroundServer) -> Iterator[Http]:
    made = Http(server)
    yield made
    made.connection.close()


def test_an_image_is_classified_for_all_tasks_with_one_run_of_the_trunk(ask: Http) -> None:
    status, answer = ask("POST", "/predict?top_k=2", PICTURE)
    assert status == 200
    assert answer["tasks"].keys() == set(TASK_NAMES)
    ran = {run["segment"]: run["rows"] for run in answer["segments"]}
    assert len(answer["segments"]) == len(ran) == len(LAYERS)
    assert (ran["trunk"], ran["suffix"]) == (1, 3)
    assert answer["milliseconds"] >= sum(run["milliseconds"] for run in answer["segments"])
    scores = softmax(whole("late", images(1)))[0]
    found = answer["tasks"]["late"]["labels"]
    assert [item["label"] for item in found] == ["nesw"[index] for index in np.argsort(-scores)[:2]]
    np.testing.assert_allclose([item["score"] for item in found], sorted(scores, reverse=True)[:2], rtol=1e-4)


@pytest.mark.parametrize(
    "query", ["tasks=late,probe", "tasks=late&tasks=probe", "tasks=late,probe&tasks=probe", "tasks=late&tasks=,probe"]
)
def test_a_list_of_tasks_may_come_in_one_parameter_or_in_several(ask: Http, query: str) -> None:
    """Python's requests sends {"tasks": ["late", "probe"]} in several."""
    status, answer = ask("POST", f"/predict?{query}", PICTURE)
    assert (status, list(answer["tasks"])) == (200, ["late", "probe"])


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v2/logging", "GET, HEAD, POST"),  # a route for each
        ("PUT", "/v2/models/late/infer", "POST"),
        ("TRACE", "/v2", "GET, HEAD"),
        ("PROPFIND", "/predict", "POST"),
        ("POST", "/static-offline-docs/swagger-ui.css", "GET, HEAD"),
    ],
)
def test_a_method_that_is_not_offered_is_refused_with_those_that_are(
    server: BackgroundServer, method: str, path: str, allowed: str
) -> None:
    connection = http.client.HTTPConnection(server.http_address, timeout=20)
    connection.request(method, path)
    response = connection.getresponse()
    assert (response.status, response.headers["allow"]) == (405, allowed)
    assert json.loads(response.read()) == {"error": f"{method} is not offered on {path}; use {allowed}."}
    connection.close()


@pytest.mark.parametrize("path", ["/predict?tasks=late", "/predict/late"])
def test_only_what_is_asked_for_runs(ask: Http, path: str) -> None:
    _, answer = ask("POST", path, PICTURE)
    assert list(answer["tasks"]) == ["late"]
    assert [run["segment"] for run in answer["segments"]] == list(CHAINS["late"])
    assert len(answer["tasks"]["late"]["labels"]) == 4  # top_k is 5 by default; there are 4 classes


def test_a_compressed_body_is_an_image_too(ask: Http) -> None:
    status, answer = ask("POST", "/predict/late", gzip.compress(PICTURE), Content_Encoding="gzip")
    assert (status, list(answer["tasks"])) == (200, ["late"])


def test_tasks_are_listed_with_what_runs_for_them(ask: Http) -> None:
    _, answer = ask("GET", "/tasks")
    tasks = {task["name"]: task for task in answer["tasks"]}
    assert tasks["probe"]["segments"] == list(CHAINS["probe"])
    assert tasks["probe"]["labels"] == ["cat", "dog", "emu"]
    assert tasks["late"]["macs"] == 192 * 7 + 7 * 4
    assert tasks["late"]["preprocessing"]["height"] == 8


def test_the_interface_is_described(ask: Http) -> None:
    _, schema = ask("GET", "/openapi.json")
    assert {"/predict", "/predict/{task}", "/tasks", "/v2/models/{model}/infer", "/v2/health/ready"} <= schema["paths"].keys()
    parameters = {parameter["name"]: parameter for parameter in schema["paths"]["/predict"]["post"]["parameters"]}
    assert "commas" in parameters["tasks"]["description"]
    assert "image/*" in schema["paths"]["/predict"]["post"]["requestBody"]["content"]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "words"),
    [
        ("POST", "/predict", b"hello", {}, 400, "not an image; send the bytes of one (PNG, JPEG"),
        ("POST", "/predict", b"", {}, 400, "The body is empty"),
        ("POST", "/predict", PICTURE[:100], {}, 400, "damaged or truncated"),
        ("POST", "/predict?tasks=cats", PICTURE, {}, 400, "Unknown task 'cats'; known are: colour, late, parity, probe"),
        ("POST", "/predict/cats", PICTURE, {}, 400, "Unknown task 'cats'"),
        ("POST", "/predict?tasks=", PICTURE, {}, 400, "No task was asked for; name at least one of"),
        ("POST", "/predict?top_k=0", PICTURE, {}, 400, "Parameter 'top_k': Input should be greater than or equal to 1"),
        ("POST", "/predict?top_k=many", PICTURE, {}, 400, "Parameter 'top_k': Input should be a valid integer"),
        ("POST", "/predict", b"--x", {"Content_Type": "multipart/form-data; boundary=x"}, 400, "The form is truncated: its last"),
        ("POST", "/predict", PICTURE, {"Content_Encoding": "gzip"}, 400, "does not decompress"),
        ("POST", "/predict", PICTURE, {"Content_Encoding": "br"}, 400, "'br' is not supported; use gzip, deflate or none"),
        ("GET", "/predict", None, {}, 405, "GET is not offered on /predict; use POST"),
        ("GET", "/nothing", None, {}, 404, "There is nothing at /nothing; GET /docs lists what there is"),
        ("GET", "/", None, {}, 404, "There is nothing at /; GET /docs lists what there is"),
        ("POST", "/predict/", PICTURE, {}, 404, "There is nothing at /predict/: no path ends in a slash"),
        ("POST", "/predict/late/", PICTURE, {}, 404, "There is nothing at /predict/late/: no path ends in a slash"),
        ("POST", "/v2/models/late/infer/", b"{}", {}, 404, "no path ends in a slash or has two in a row"),
        ("GET", "/v2//models/late", None, {}, 404, "no path ends in a slash or has two in a row"),
        ("GET", "/docs/", None, {}, 404, "no path ends in a slash"),
        ("GET", "/redoc", None, {}, 404, "There is nothing at /redoc; GET /docs"),
        ("POST", "/predict?top_k=1&top_k=2", PICTURE, {}, 400, "Query parameter 'top_k' is given 2 times; give it once."),
        ("POST", "/predict/late?timeout=9&timeout=9", PICTURE, {}, 400, "Query parameter 'timeout' is given 2 times; give it once."),
        ("POST", "/predict?tasks=late&tasks=cats", PICTURE, {}, 400, "Unknown task 'cats'; known are: colour, late, parity, probe"),
        ("POST", "/predict?tasks=&tasks=,", PICTURE, {}, 400, "No task was asked for; name at least one of"),
        ("POST", "/v2/models/la%2Fte/infer", b"{}", {}, 404, "Unknown model 'la/te'"),
        ("GET", "/v2/models/cats", None, {}, 404, "Unknown model 'cats'"),
        ("GET", "/v2/models/cats/ready", None, {}, 404, "Unknown model 'cats'"),
        ("POST", "/v2/models/late/infer", b"{", {}, 400, "not JSON"),
        ("POST", "/v2/models/late/infer", b"{}", {"Inference_Header_Content_Length": "x"}, 400, "Inference-Header-Content-Length"),
        ("POST", "/v2/models/late/infer", b"{}", {}, 400, "needs input 'image' (UINT8, shape [-1, 8, 8, 3], first the rows)"),
        ("POST", "/v2/repository/models/late/load", b"", {}, 501, "Loading and unloading models is not offered by this server"),
        ("POST", "/v2/models/late/infer", b"x", {"Content_Length": str(2**40)}, 413, "larger than the limit of 67108864 bytes"),
    ],
)  # fmt: skip
def test_every_error_is_one_sentence_in_one_shape(
    server: BackgroundServer, method: str, path: str, body: Any, headers: dict[str, str], status: int, words: str
) -> None:
    ask = Http(server)
    found, answer = ask(method, path, body, **headers)
    ask.connection.close()
    assert found == status
    assert answer.keys() == {"error"}
    assert words in answer["error"]
    assert "\n" not in answer["error"]


def test_the_limit_holds_while_reading_and_while_decompressing(repository: Repository) -> None:
    with BackgroundServer(repository, InMemoryEngine(LAYERS), http_port=0, grpc_port=0, max_body_bytes=5000) as server:
        ask = Http(server)
        chunks = iter([b"x" * 1000] * 6)  # no Content-Length: sent in chunks
        assert ask("POST", "/v2/models/late/infer", chunks)[0] == 413
        bomb = gzip.compress(b"x" * 10_000_000)[:4000]
        status, answer = ask("POST", "/v2/models/late/infer", bomb, Content_Encoding="gzip")
        assert (status, answer["error"]) == (413, "The request is larger than the limit of 5000 bytes.")
        assert ask("GET", "/v2/health/live")[0] == 200
        ask.connection.close()


def test_unexpected_failures_say_nothing_of_the_inside(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(InMemoryEngine):
        async def infer(self, plan: Any, rows: Any, call: Any = None) -> Any:
            raise RuntimeError("secret at /some/path")

    with BackgroundServer(repository, Broken(LAYERS), http_port=0, grpc_port=0) as server:
        ask = Http(server)
        rows = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [0] * 192}
        body = json.dumps({"inputs": [rows]}).encode()
        answers = [ask("POST", "/v2/models/late/infer", body), ask("POST", "/predict", PICTURE)]
        ask.connection.close()
    assert answers == [(500, {"error": "Internal error; the server's log says more."})] * 2
    assert caplog.text.count("secret at /some/path") >= 2


def test_a_failing_segment_is_logged_and_its_task_named(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    engine = InMemoryEngine({**LAYERS, "branch-late": lambda rows: rows @ "x"})
    with BackgroundServer(repository, engine, http_port=0, grpc_port=0) as server:
        ask = Http(server)
        status, answer = ask("POST", "/predict/late", PICTURE)
        assert status == 503
        assert "Task 'late' could not be computed: Segment 'branch-late' failed" in answer["error"]
        assert ask("POST", "/predict/probe", PICTURE)[0] == 200  # the other tasks go on
        ask.connection.close()
    assert "Segment 'branch-late' failed" in caplog.text


def test_a_client_that_hangs_up_while_sending_disturbs_nobody(server: BackgroundServer, ask: Http) -> None:
    connection = http.client.HTTPConnection(server.http_address)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"half")
    connection.close()
    assert ask("POST", "/predict", PICTURE)[0] == 200


def test_the_small_client_asks_and_passes_sentences_on(server: BackgroundServer) -> None:
    url = f"http://{server.http_address}/"
    answer = predict(url, PICTURE, ["late", "probe"], top_k=1)
    assert {task: len(result["labels"]) for task, result in answer["tasks"].items()} == {"late": 1, "probe": 1}
    assert predict(url, PICTURE)["tasks"].keys() == set(TASK_NAMES)
    with pytest.raises(RequestRefused, match=r"refused the request \(400\): Unknown task 'cats'; known are: colour"):
        predict(url, PICTURE, ["cats"])
    with pytest.raises(InvalidRequest, match="'localhost:8000' is not the address of a server; give one like"):
        predict("localhost:8000", PICTURE)


def test_the_small_client_takes_no_detour(server: BackgroundServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names would see the admin token, and does not reach this machine's loopback."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert list(predict(f"http://{server.http_address}", PICTURE, ["late"])["tasks"]) == ["late"]
    with pytest.raises(RequestRefused, match="Loading and unloading models is not offered"):
        control_model(f"http://{server.http_address}", "late", "load", "secret")


def test_what_is_no_http_server_cannot_write_to_the_terminal(server: BackgroundServer) -> None:
    with pytest.raises(ServerUnreachable, match="No server answers at") as caught:
        predict(f"http://{server.grpc_address}", PICTURE)
    assert str(caught.value).isprintable()
    assert str(ServerUnreachable("http://x", "a\x1b[31m\nb\u2028é")).count(r"(a\x1b[31m\nb\u2028é)") == 1
    assert len(str(RequestRefused(400, "x" * 100_000))) < 1100
    assert str(RequestRefused(400, "no\x07")).endswith(r"(400): no\x07")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/health/live", 200),
        ("/v2/health/ready", 200),
        ("/v2/models/late/ready", 200),
        ("/v2/models/late/versions/1/ready", 200),
        ("/v2/models/cats/ready", 404),
        ("/v2/models/l%61te", 200),
        ("/tasks", 200),
        ("/docs", 200),
        ("/predict", 405),
    ],
)
def test_probes_may_ask_without_wanting_a_body(server: BackgroundServer, path: str, status: int) -> None:
    connection = http.client.HTTPConnection(server.http_address, timeout=20)
    for method in ("HEAD", "HEAD", "GET"):  # on one connection: a body would be taken for the next answer
        connection.request(method, path)
        response = connection.getresponse()
        assert response.status == status
        assert bool(response.read()) == (method == "GET")
    connection.close()


def test_the_small_client_says_when_nobody_answers(server: BackgroundServer, tmp_path: Any) -> None:
    with pytest.raises(ServerUnreachable, match=r"No server answers at http://127.0.0.1:1 .*espalier serve REPO"):
        predict("http://127.0.0.1:1", PICTURE)

    class Other(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as stranger:
        thread = threading.Thread(target=stranger.handle_request)
        thread.start()
        with pytest.raises(ServerUnreachable, match="not an espalier server"):
            predict(f"http://127.0.0.1:{stranger.server_port}", PICTURE)
        thread.join()


def test_the_command_shows_a_score_that_is_no_number(repository: Repository, tmp_path: Any) -> None:
    (tmp_path / "picture.png").write_bytes(PICTURE)
    engine = InMemoryEngine({**LAYERS, "branch-late": lambda rows: np.array([[np.nan, 1, np.inf, 2]], np.float32)})
    with BackgroundServer(repository, engine, http_port=0, grpc_port=0) as server:
        options = ["infer", str(tmp_path / "picture.png"), "--task", "late", "--url", f"http://{server.http_address}"]
        shown = CliRunner().invoke(app, options)
    assert (shown.exit_code, shown.output.count("not finite")) == (0, 4)
