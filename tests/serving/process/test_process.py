"""The server as a process: SIGTERM drains it, a second signal ends it, and after a kill it serves as before."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from contract.repository import Repository
from tests.serving.nets import TASK_NAMES, images, whole
from tests.serving.protocol.held_requests import Reply, ask_grpc, ask_http, grpc_request, infer_body, raw_request, wait_for
from tests.serving.protocol.http.test_http import PICTURE
from tests.serving.test_server import can_connect

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
# A server whose first request waits until a line comes, and which says when it does.
GATED = """
import sys, threading
from serving.server import run
from tests.serving.nets import make_repository
from tests.serving.protocol.held_requests import Gated
engine = Gated()
def open_gate():
    if sys.stdin.readline():  # not where stdin has been closed, as by whoever waits for the end
        engine.gate.set()
def tell():
    engine.at_the_gate.wait()
    print("at the gate", flush=True)
for work in (open_gate, tell):
    threading.Thread(target=work, daemon=True).start()
run(make_repository(), engine=engine, http_port=0, grpc_port=0, grace_s=float(sys.argv[1]))
"""
# A server in which something never comes to an end, in the place that argv[1] names, and which has a folder that is deleted at the end.
STUCK = """
import sys, tempfile, time
from serving.engines.in_memory import InMemoryEngine
from serving.server import run
from serving.process.threads import to_thread
from tests.serving.nets import LAYERS, make_repository
place = sys.argv[1]
def stay(here, value=None):
    if here == place:
        print("stuck", flush=True)
        time.sleep(600)
    return value
class Stuck(InMemoryEngine):
    async def start(self):
        await super().start()
        if place == "loading":
            print("http://127.0.0.1:1 grpc://127.0.0.1:1")
        await to_thread(stay, "loading")
    async def infer(self, plan, inputs, call):
        stay("loop")
        await to_thread(stay, "thread")
        return await super().infer(plan, inputs, call)
folder = tempfile.TemporaryDirectory(dir=sys.argv[2])
engine = Stuck({**LAYERS, "trunk": lambda rows: stay("run", LAYERS["trunk"](rows))})
run(make_repository(), engine=engine, http_port=0, grpc_port=0, grace_s=0.2)
print("returned")
"""


@dataclass
class Process:
    """A server's process, and its addresses as `ask_http` and `ask_grpc` want them."""

    process: subprocess.Popen[str]
    http_port: int
    grpc_port: int

    @property
    def http_address(self) -> str:
        return f"127.0.0.1:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def wait(self) -> tuple[int, str]:
        """Return the exit code and what the process has written to stderr."""
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@contextmanager
def started(*arguments: str, **options: Any) -> Iterator[Process]:
    """Run python and yield the process when it serves; end it, if need be, at the end."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, *arguments], text=True, cwd=ROOT, **pipes, **options)  # type: ignore[call-overload]
    try:
        text = ""
        for line in process.stdout:
            text += line
            if "grpc://" in line:
                break
        found = re.search(r"http://127.0.0.1:(\d+).*grpc://127.0.0.1:(\d+)", text, re.DOTALL)
        assert found is not None, process.communicate()
        yield Process(process, int(found[1]), int(found[2]))
    finally:
        process.kill()
        process.communicate()


@contextmanager
def gated(grace_s: float = 30) -> Iterator[Process]:
    with started("-c", GATED, str(grace_s)) as server:
        yield server


def read_line(server: Process) -> str:
    assert server.process.stdout is not None
    return server.process.stdout.readline()


def open_gate(server: Process) -> None:
    assert server.process.stdin is not None
    server.process.stdin.write("\n")
    server.process.stdin.flush()


def has_left(server: Process) -> bool:
    return not can_connect(server.http_port)


def test_sigterm_finishes_what_is_in_flight_refuses_the_rest_and_exits_with_0() -> None:
    with gated() as server, ThreadPoolExecutor(2) as pool, socket.create_connection(("127.0.0.1", server.http_port)) as idle:
        idle.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")  # and is kept alive
        assert idle.recv(12) == b"HTTP/1.1 200"
        asked = [pool.submit(ask, server, rows=rows) for ask, rows in ((ask_http, 1), (ask_grpc, 2))]  # type: ignore[arg-type]
        assert read_line(server) == "at the gate\n"
        wait_for(lambda: in_flight(server) == 2)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: has_left(server))
        assert ask_grpc(server).status == "UNAVAILABLE"  # type: ignore[arg-type]
        assert server.process.poll() is None
        open_gate(server)
        assert [reply.result(20) for reply in asked] == [
            Reply(200, "", asked[0].result().headers, {}, ("late",)),
            Reply("OK", outputs=("late",)),
        ]
        assert server.wait() == (0, "")


def in_flight(server: Process) -> int:
    """Return how many requests for `late` are being answered."""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    found = re.search(r'^nv_inference_pending_request_count\{[^}]*model="late"[^}]*\} ([\d.]+)$', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def test_a_second_signal_ends_it_at_once() -> None:
    with gated() as server, socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as connection:
        connection.sendall(raw_request("/v2/models/late/infer", infer_body(1)))
        assert read_line(server) == "at the gate\n"
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: has_left(server))
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == (130, "")
        assert connection.recv(1) == b""


@pytest.mark.parametrize(("path", "body"), [("/v2/models/late/infer", infer_body(1)), ("/predict/late", PICTURE)])
def test_what_takes_longer_than_the_grace_is_cut_off(path: str, body: bytes) -> None:
    with (
        gated(grace_s=1) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
        socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as connection,
    ):
        connection.sendall(raw_request(path, body))
        assert read_line(server) == "at the gate\n"
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(grpc_request(rows=2))
        wait_for(lambda: in_flight(server) == 2)
        server.process.send_signal(signal.SIGTERM)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(
            b'{"error":"The server is shutting down, and did not finish this request in time; ask another server."}'
        )
        assert call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        open_gate(server)  # a run cannot be cut off
        code, errors = server.wait()
        assert (code, "Traceback" in errors) == (0, False), errors


@contextmanager
def stuck(place: str, folder: Path) -> Iterator[Process]:
    """A server's process in which a request, or the start, is stuck in `place`."""
    with started("-c", STUCK, place, str(folder)) as server, socket.socket() as connection:
        if place != "loading":
            connection.connect(("127.0.0.1", server.http_port))
            connection.sendall(raw_request("/v2/models/late/infer", infer_body(1)))
        assert read_line(server) == "stuck\n"
        assert list(folder.iterdir())
        yield server


# What is said at the end. A request that a thread is stuck with has been answered with 503, one that holds the loop has not.
LEFT = {
    "run": (0, "The engine did not come to an end in time and was left behind"),
    "thread": (0, "Still at work, in threads that end with their work or with this process: aside-0."),
    "loading": (0, "Still at work, in threads that end with their work or with this process: aside-0."),
    "loop": (143, "The event loop does not come back: the process is ended"),
}


@pytest.mark.parametrize("place", LEFT)
def test_sigterm_ends_it_in_time_whatever_its_threads_do(place: str, tmp_path: Path) -> None:
    code, sentence = LEFT[place]
    with stuck(place, tmp_path) as server:
        server.process.send_signal(signal.SIGTERM)
        found, errors = server.wait()  # a grace of 0.2 and two seconds; what it is stuck with would take ten minutes
    assert (found, sentence in errors, "Traceback" in errors) == (code, True, False), errors
    assert not list(tmp_path.iterdir())


def test_a_second_signal_is_heard_while_the_loop_stands_still(tmp_path: Path) -> None:
    with stuck("loop", tmp_path) as server:
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGINT)
        assert server.wait() in ((130, ""), (143, ""))  # both may come at once, in any order
    assert not list(tmp_path.iterdir())


def test_who_keeps_pythons_lock_does_not_keep_the_process() -> None:
    code = "from serving.process.ending import ended_after\nwith ended_after(0.2): 7 ** 10 ** 9"  # hours, in C, without a pause
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 1
    assert "Timeout" in done.stderr  # and what the threads did


def serve(repository: Repository, folder: Path, http_port: int = 0, grpc_port: int = 0) -> Any:
    ports = ("--http-port", str(http_port), "--grpc-port", str(grpc_port))
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "COLUMNS": "200"}
    return started("-m", "espalier.cli", "serve", str(repository.path), "--threads", "1", *ports, env=environment)


def answers(server: Process) -> dict[str, bytes]:
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        found = {task: stub.ModelInfer(grpc_request(task, 2), timeout=20).raw_output_contents[0] for task in TASK_NAMES}
    for task, values in found.items():
        rows = np.frombuffer(values, np.float32).reshape(2, -1)
        np.testing.assert_allclose(rows, whole(task, images(2)), rtol=1e-4, atol=1e-5)
    return found


def test_after_a_kill_it_serves_as_before_on_the_same_ports(repository: Repository, tmp_path: Path) -> None:
    with serve(repository, tmp_path) as server, socket.create_connection(("127.0.0.1", server.http_port)) as connection:
        before = answers(server)
        connection.sendall(raw_request("/v2/models/late/infer", infer_body(1)) * 50)  # killed in the midst of its work
        assert connection.recv(12) == b"HTTP/1.1 200"
        server.process.kill()
        assert server.wait()[0] == -signal.SIGKILL
    with serve(repository, tmp_path, server.http_port, server.grpc_port) as again:
        assert (again.http_port, again.grpc_port) == (server.http_port, server.grpc_port)
        assert answers(again) == before
        again.process.send_signal(signal.SIGTERM)
        assert again.wait()[0] == 0


@pytest.mark.parametrize("files", ["empty", "half", "noise"])
def test_what_a_kill_has_left_half_written_in_the_cache_does_no_harm(repository: Repository, tmp_path: Path, files: str) -> None:
    with serve(repository, tmp_path) as server:
        before = answers(server)
        server.process.kill()
    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "rows.json" for file in kept)
    for file in kept:
        content = file.read_bytes()
        file.chmod(0o600)
        file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "noise": os.urandom(len(content))}[files])
    with serve(repository, tmp_path) as server:
        assert answers(server) == before
        json.loads(next(file for file in kept if file.name == "rows.json").read_text())  # learnt again
