"""`espalier deploy`, `undeploy`, `rollback` and `promote`: what they say, and what they tell a server."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from contract.preprocessing import Preprocessing
from contract.repository import Repository, read_repository
from exporter.deploy import deploy
from exporter.sources.task_model import Sources, TaskModel
from serving.server import BackgroundServer
from tests.contract.repository.states import replace_with, state
from tests.espalier.test_cli import espalier
from tests.exporter.graphs import SIZE, Net
from tests.exporter.test_export import FAMILY, export

# as a whole: the fast part of the suite is to stay under a minute
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_preflight", "unsynced")]

ASKED = ("GET", "/v2/repository/control")
NEW = Net(blocks=(1, 2, 3, 41), head=11)


class Server(ThreadingHTTPServer):
    """Stands for a server that may be told what to load; answers `status` and keeps what it is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.location = 200, ""
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
        body = b"{}" if self.server.status == 200 else json.dumps({"error": f"Because of {self.server.status}."}).encode()
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def running_server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESPALIER_ADMIN_TOKEN", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return export(tmp_path_factory.mktemp("family") / "repo", {name: FAMILY[name] for name in ("probe", "late")}).repository


@pytest.fixture
def folder(tmp_path: Path, family: Repository) -> Path:
    """A repository `repo`, the models probe.onnx and late.onnx for it, and a file with a token."""
    replace_with(tmp_path / "repo", family)
    NEW.save(tmp_path / "probe.onnx")
    FAMILY["late"].save(tmp_path / "late.onnx")
    (tmp_path / "token").write_text("s3cret\n")
    return tmp_path


def versions(folder: Path, task: str) -> list[str]:
    return [version.version for version in read_repository(folder / "repo").tasks[task].versions]


@pytest.mark.slow
def test_a_canary_is_deployed_promoted_and_rolled_back(folder: Path) -> None:
    run = espalier("deploy", "probe.onnx", "--to", "repo", "--canary", "5%", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "Version 1 of probe is current and version 2 is its canary with 5 % of the requests." in run.stdout
    assert "probe keeps" not in run.stdout  # nothing is known of it
    assert "1 new segment, " in run.stdout
    assert "until it is told: with --url, or by POST /v2/repository/models/probe/load." in run.stdout
    run = espalier("promote", "probe", "--in", "repo", cwd=folder)
    assert "Version 2 of probe is current and version 1 is kept for a rollback.\n" in run.stdout
    run = espalier("rollback", "probe", "--in", "repo", cwd=folder)
    assert "Version 1 of probe is current and version 2 is kept for a rollback.\n" in run.stdout
    assert versions(folder, "probe") == ["1", "2"]
    run = espalier("gc", "repo", "--drop-previous", cwd=folder)
    assert "No version is kept for a rollback any more" in run.stdout
    assert "Removed 1 segment and freed" in run.stdout
    run = espalier("rollback", "probe", "--in", "repo", cwd=folder)
    assert run.returncode == 2
    assert "Error: Task 'probe' has no earlier version and no canary, so there is nothing to roll back." in run.stderr


@pytest.mark.slow
def test_what_is_let_go_of_is_said(folder: Path) -> None:
    espalier("deploy", "probe.onnx", "--to", "repo", cwd=folder)
    espalier("deploy", "other=probe.onnx", "--to", "repo", cwd=folder)
    run = espalier("deploy", "probe.onnx", "--to", "repo", cwd=folder)
    assert "Nothing changed: version 2 of probe is current and version 1 is kept for a rollback." in run.stdout
    FAMILY["early"].save(folder / "early.onnx")
    espalier("deploy", "other=probe.onnx", "--canary", "0.5", "--to", "repo", cwd=folder)
    run = espalier("deploy", "early.onnx", "--name", "other", "--to", "repo", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "Version 3 of other is current and version 1 is kept for a rollback. Version 2 is gone." in run.stdout
    assert versions(folder, "other") == ["3", "1"]


@pytest.mark.parametrize("command", [["deploy", "middle.onnx", "--to", "repo"], ["add", "repo", "--task", "middle=middle.onnx"]])
def test_the_advice_to_cut_anew_can_be_followed(folder: Path, command: list[str]) -> None:
    FAMILY["middle"].save(folder / "middle.onnx")
    advised = espalier(*command, cwd=folder)
    assert advised.returncode == 0, advised.stderr
    assert "computes something else" not in advised.stdout  # it is the cuts that differ
    advice = re.search(r"no cut after them; `espalier (.*)` cuts anew", " ".join(advised.stdout.split()))
    assert advice is not None
    run = espalier(*advice[1].split(), cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "Cut late, middle, probe anew by the rule 'exact': 6 new segments, 2 kept as they were." in run.stdout
    assert "No task uses 3 of the segments; `espalier gc repo` removes them." in run.stdout
    again = espalier(*advice[1].split(), "--cuts", "exact", cwd=folder)
    assert "Every cut is where an export by the rule 'exact' makes it: nothing was cut anew." in again.stdout


def test_how_to_cut_is_asked_only_where_something_is_cut_anew(folder: Path) -> None:
    for words, sentence in (
        (["--cuts", "exact"], "give --recut, too"),
        (["--recut", "--cuts", "fine"], "cheap, exact or stages"),
    ):
        run = espalier("add", "repo", "--task", "more=probe.onnx", *words, cwd=folder)
        assert run.returncode == 2
        assert sentence in " ".join(run.stderr.replace("│", "").split())


@pytest.mark.parametrize(
    "command", [["deploy", "probe.onnx", "--to", "repo"], ["add", "repo", "--task", "probe=probe.onnx", "--replace"]]
)
def test_what_a_model_keeps_of_the_version_before_is_said(folder: Path, command: list[str]) -> None:
    known = TaskModel(FAMILY["probe"].model(), ("ant", "bee", "cat"), Preprocessing(SIZE, SIZE))
    deploy(folder / "repo", Sources({"probe": lambda: known}))
    run = espalier(*command, cwd=folder)
    assert run.returncode == 0, run.stderr
    words = "probe keeps the preprocessing and labels of version 2, because the model brings none."
    assert words in " ".join(run.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "path"),
    [
        (["deploy", "probe.onnx", "--to", "repo"], "probe/load"),
        (["deploy", "pets=probe.onnx", "--to", "repo"], "pets/load"),
        (["deploy", "late.onnx", "--to", "repo"], "late/load"),  # it is there already: only the server is told, again
        (["undeploy", "late", "--from", "repo"], "late/unload"),
    ],
)
def test_a_server_is_told_with_the_token(folder: Path, server: Server, command: list[str], path: str) -> None:
    run = espalier(*command, "--url", f"{server.url}/", "--token-file", "token", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert server.asked == [(*ASKED, "Bearer s3cret"), ("POST", f"/v2/repository/models/{path}", "Bearer s3cret")]
    assert server.url in run.stdout
    assert "s3cret" not in run.stdout + run.stderr


@pytest.mark.slow
def test_the_token_may_be_in_the_environment(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_ADMIN_TOKEN", "from-there")
    for command in (
        ["deploy", "probe.onnx", "--to"],
        ["rollback", "probe", "--in"],
        ["deploy", "probe.onnx", "--canary", "1%", "--to"],
    ):
        assert espalier(*command, "repo", "--url", server.url, cwd=folder).returncode == 0
    assert espalier("promote", "probe", "--in", "repo", "--url", server.url, cwd=folder).returncode == 0
    told = ("POST", "/v2/repository/models/probe/load", "Bearer from-there")
    assert server.asked == [(*ASKED, "Bearer from-there"), told] * 4


@pytest.mark.slow
@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses_is_quoted_and_the_way_back_is_named(folder: Path, server: Server, status: int) -> None:
    server.status = status
    run = espalier("deploy", "probe.onnx", "--to", "repo", "--url", server.url, "--token-file", "token", cwd=folder)
    assert run.returncode == 1
    assert f"The server refused the request ({status}): Because of {status}." in run.stderr
    assert "On disk, version 2 of probe is current and version 1 is kept for a rollback." in run.stderr
    assert "`espalier rollback probe --in repo` goes back." in run.stderr
    assert f"To tell the server again: POST {server.url}/v2/repository/models/probe/load." in run.stderr
    assert versions(folder, "probe") == ["2", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 403, 501])
def test_a_server_that_takes_no_loads_is_asked_before_anything_is_changed(folder: Path, server: Server, status: int) -> None:
    server.status = status
    before = state(folder / "repo")
    with running_server() as willing:
        told = ("--url", willing.url, "--url", server.url, "--token-file", "token")
        for command in (["deploy", "probe.onnx", "--to"], ["undeploy", "late", "--from"], ["rollback", "probe", "--in"]):
            run = espalier(*command, "repo", *told, cwd=folder)
            assert run.returncode == 2
            words = f"takes no loads from here, so that nothing was changed ({status}): Because of {status}. A server that is started with"
            assert f"The server at {server.url} {words} --admin-token-file FILE takes loads from who gives the same" in run.stderr
        assert [one[:2] for one in (*willing.asked, *server.asked)] == [ASKED] * 6
    assert state(folder / "repo") == before


@pytest.mark.slow
def test_nothing_is_changed_where_no_server_answers(folder: Path) -> None:
    before = state(folder / "repo")
    with running_server() as gone:
        gone.server_close()
        run = espalier("deploy", "probe.onnx", "--to", "repo", "--url", gone.url, "--token-file", "token", cwd=folder)
    assert (run.returncode, f"No server answers at {gone.url}" in run.stderr) == (2, True)
    assert state(folder / "repo") == before


@pytest.mark.slow
def test_the_way_back_is_one_that_there_is(folder: Path, server: Server) -> None:
    server.status = 503
    told = ("--url", server.url, "--token-file", "token")
    run = espalier("deploy", "pets=probe.onnx", "--to", "repo", *told, cwd=folder)
    assert "`espalier undeploy pets --from repo` removes it." in run.stderr
    espalier("deploy", "probe.onnx", "--canary", "5%", "--to", "repo", *told, cwd=folder)
    run = espalier("rollback", "probe", "--in", "repo", *told, cwd=folder)
    assert run.returncode == 1
    assert "On disk, version 1 of probe is current." in run.stderr
    assert "espalier rollback" not in run.stderr
    run = espalier("undeploy", "late", "pets", "--from", "repo", *told, cwd=folder)
    assert "On disk, late, pets are removed. Only `espalier deploy` of the models brings that back." in run.stderr


def test_several_servers_are_told_in_order_each_once(folder: Path, server: Server) -> None:
    with running_server() as other:
        told = ("--url", server.url, "--url", other.url, "--url", f"{server.url}/", "--token-file", "token")
        run = espalier("deploy", "probe.onnx", "--to", "repo", *told, cwd=folder)
        assert run.returncode == 0, run.stderr
        assert (
            server.asked
            == other.asked
            == [(*ASKED, "Bearer s3cret"), ("POST", "/v2/repository/models/probe/load", "Bearer s3cret")]
        )
        assert run.stdout.endswith(f"{server.url} serves it now.\n{other.url} serves it now.\n")
        espalier("undeploy", "late", "--from", "repo", *told, cwd=folder)
        assert [path for _, path, _ in other.asked[2:]] == [ASKED[1], "/v2/repository/models/late/unload"]


def test_servers_that_are_not_told_hinder_no_others_and_are_named(folder: Path, server: Server) -> None:
    server.status = 503
    with running_server() as other, running_server() as gone:
        urls = (gone.url, server.url, other.url)
        gone.server_close()
        told = [word for url in urls for word in ("--url", url)]
        run = espalier("rollback", "probe", "--in", "repo", *told, "--token-file", "token", cwd=folder)
        assert (run.returncode, len(other.asked)) == (2, 1)  # nothing to roll back
        run = espalier("deploy", "probe.onnx", "--to", "repo", *told, "--token-file", "token", cwd=folder)
        assert (run.returncode, len(other.asked)) == (1, 3)
    assert f"{other.url} serves it now." in run.stdout
    assert f"Error: {gone.url}: No server answers at {gone.url}" in run.stderr
    assert f"{server.url}: The server refused the request (503): Because of 503. Of 3 servers 1 was told." in run.stderr
    assert "On disk, version 2 of probe is current and version 1 is kept for a rollback." in run.stderr
    requests = ", ".join(f"POST {url}/v2/repository/models/probe/load" for url in urls[:2])
    assert f"To tell the rest again: {requests}." in run.stderr


class Served:
    """A real server on the folder's repository, asked for its answers and versions."""

    def __init__(self, server: BackgroundServer) -> None:
        self.url = f"http://{server.http_address}"
        self._address = server.http_address

    def version(self, task: str) -> str | None:
        """Return the version of `task` that is served, None when it is not."""
        status, answer = self._ask("GET", f"/v2/models/{task}")
        return str(answer["versions"][0]) if status == 200 else None

    def answer(self, task: str) -> np.ndarray:
        tensor = {"name": "image", "datatype": "UINT8", "shape": ROWS.shape, "data": ROWS.ravel().tolist()}
        status, answer = self._ask("POST", f"/v2/models/{task}/infer", json.dumps({"inputs": [tensor]}))
        assert status == 200, answer
        return np.array(answer["outputs"][0]["data"]).reshape(len(ROWS), -1)

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
        with closing(http.client.HTTPConnection(self._address, timeout=20)) as connection:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())


ROWS = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)


def own_answer(net: Net) -> np.ndarray:
    session = ort.InferenceSession(net.proto().SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": ROWS})[0]  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_real_server_serves_what_the_commands_say(folder: Path) -> None:
    old = FAMILY["probe"]
    with BackgroundServer(folder / "repo", http_port=0, grpc_port=0, threads=1, admin_token="s3cret") as running:
        served = Served(running)
        told = ("--url", served.url, "--token-file", "token")

        def serves(task: str, version: str, net: Net) -> bool:
            return served.version(task) == version and np.allclose(served.answer(task), own_answer(net), rtol=1e-4, atol=1e-5)

        assert serves("probe", "1", old)
        for command, version, net in (
            (["deploy", "probe.onnx", "--to", "repo"], "2", NEW),
            (["rollback", "probe", "--in", "repo"], "1", old),
            (["deploy", "probe.onnx", "--to", "repo", "--canary", "0.001%"], "1", old),
            (["promote", "probe", "--in", "repo"], "3", NEW),
        ):
            run = espalier(*command, *told, cwd=folder)
            assert (run.returncode, f"{served.url} serves it now." in run.stdout) == (0, True), run.stderr
            assert serves("probe", version, net), command
            assert serves("late", "1", FAMILY["late"])
        assert espalier("deploy", "pets=probe.onnx", "--to", "repo", *told, cwd=folder).returncode == 0
        assert serves("pets", "1", NEW)
        run = espalier("undeploy", "pets", "late", "--from", "repo", *told, cwd=folder)
        assert run.returncode == 0, run.stderr
        assert (served.version("pets"), served.version("late")) == (None, None)
        assert serves("probe", "3", NEW)


@pytest.mark.slow
def test_a_real_server_that_refuses_goes_on_as_it_was(folder: Path) -> None:
    (folder / "token").write_text("another")
    with BackgroundServer(folder / "repo", http_port=0, grpc_port=0, threads=1, admin_token="s3cret") as running:
        served = Served(running)
        told = ("--url", served.url, "--token-file", "token")
        run = espalier("deploy", "probe.onnx", "--to", "repo", *told, cwd=folder)
        assert run.returncode == 2
        assert "takes no loads from here, so that nothing was changed (403): The token is not this server's." in run.stderr
        assert versions(folder, "probe") == ["1"]
        assert served.version("probe") == "1"
        (folder / "token").write_text("s3cret")
        espalier("undeploy", "late", "--from", "repo", *told, cwd=folder)
        run = espalier("undeploy", "probe", "--from", "repo", *told, cwd=folder)
        assert run.returncode != 0
        assert served.version("probe") == "1"
    with BackgroundServer(folder / "repo", http_port=0, grpc_port=0, threads=1) as running:
        served = Served(running)
        run = espalier("deploy", "probe.onnx", "--to", "repo", "--url", served.url, "--token-file", "token", cwd=folder)
        assert "nothing was changed (501): Loading and unloading models is not offered by this server" in run.stderr
        assert versions(folder, "probe") == ["1"]


@pytest.mark.slow
def test_a_token_is_not_taken_elsewhere_by_a_redirect(folder: Path, server: Server) -> None:
    server.status, server.location = 302, f"{server.url}/elsewhere"
    run = espalier("deploy", "probe.onnx", "--to", "repo", "--url", server.url, "--token-file", "token", cwd=folder)
    assert run.returncode == 1
    assert "(302)" in run.stderr
    assert [path for _, path, _ in server.asked] == ["/v2/repository/control", "/v2/repository/models/probe/load"]


REFUSED = {
    "no token": (["--url", "http://127.0.0.1:1"], "give a file that holds it with --token-file, or set ESPALIER_ADMIN_TOKEN"),
    "empty token": (["--url", "http://127.0.0.1:1", "--token-file", "empty"], "wants its admin token"),
    "lines": (["--url", "http://127.0.0.1:1", "--token-file", "lines"], "one word of ASCII characters"),
    "no file": (["--url", "http://127.0.0.1:1", "--token-file", "nowhere"], "nowhere cannot be read: No such file"),
    "no text": (["--url", "http://127.0.0.1:1", "--token-file", "binary"], "binary is not text"),
    "no server": (["--token-file", "token"], "is of use with --url only"),
    "no url": (["--url", "127.0.0.1:8000", "--token-file", "token"], "is not the address of a server"),
    "no share": (["--canary", "some"], "'some' is no share of the requests"),
    "all": (["--canary", "100%"], "'100%' is no share of the requests; give more than 0% and less than 100%"),
    "5 of 1": (["--canary", "5"], "'5' is no share of the requests"),
    "no probe": (["--name", "pets", "--canary", "5%"], "Task 'pets' is not in the repository"),
    "no such name": (["--name", "all_tasks"], "cannot name a task"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_refused_before_anything_is_changed(folder: Path, what: str) -> None:
    arguments, words = REFUSED[what]
    for name, content in (("empty", b"\n"), ("lines", b"one\ntwo\n"), ("binary", b"\xff\xfe")):
        (folder / name).write_bytes(content)
    before = state(folder / "repo")
    run = espalier("deploy", "probe.onnx", "--to", "repo", *arguments, cwd=folder)
    assert run.returncode == 2
    assert words in " ".join(run.stderr.replace("│", " ").split())
    assert state(folder / "repo") == before


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("missing.onnx", "no such file"),
        ("pets=missing.onnx", "no such file"),
        ("resnet18", "'resnet18' is no file that a task could be named like; give NAME=resnet18"),
    ],
)
def test_a_model_is_a_file_or_has_a_name(folder: Path, model: str, words: str) -> None:
    run = espalier("deploy", model, "--to", "repo", cwd=folder)
    assert run.returncode == 2
    assert words in " ".join(run.stderr.replace("│", " ").split())


@pytest.mark.parametrize("command", ["deploy", "undeploy", "rollback", "promote"])
def test_every_command_has_help(command: str) -> None:
    run = espalier(command, "--help")
    assert run.returncode == 0
    assert "--token-file" in run.stdout
