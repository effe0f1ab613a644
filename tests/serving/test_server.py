"""The server's life: ports, readiness, shutting down."""

from __future__ import annotations

import asyncio
import http.client
import io
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
from PIL import Image
from tritonclient.utils import InferenceServerException

from contract.errors import RepositoryError
from contract.repository import Repository
from serving.engines.in_memory import InMemoryEngine
from serving.errors import AddressInUse, InvalidAddress
from serving.process.sockets import listening_socket
from serving.process.threads import at_work, to_thread
from serving.protocol.http.connection.limits import HttpLimits
from serving.protocol.http.connection.server import HttpServer
from serving.server import BackgroundServer, Server
from tests.serving.nets import IMAGE, LAYERS
from tests.serving.protocol.http.echo_server import EchoServer
from tests.serving.protocol.http.raw import GET, status_of

pytestmark = pytest.mark.slow


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def get(address: str, path: str) -> int:
    with closing(http.client.HTTPConnection(address, timeout=20)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


class SlowEngine(InMemoryEngine):
    """Says when it is busy, and waits for leave to go on."""

    def __init__(self) -> None:
        super().__init__(LAYERS)
        self.busy = threading.Event()
        self.go_on = threading.Event()

    async def infer(self, plan: Any, inputs: Any, call: Any = None) -> Any:
        self.busy.set()
        await asyncio.to_thread(self.go_on.wait, 20)
        return await super().infer(plan, inputs)


class SlowToStart(InMemoryEngine):
    def __init__(self) -> None:
        super().__init__(LAYERS)
        self.go_on = asyncio.Event()

    async def start(self) -> None:
        await self.go_on.wait()
        await super().start()


@pytest.mark.parametrize("which", ["http_port", "grpc_port"])
def test_a_port_in_use_is_said_before_a_model_is_loaded(broken_repository: Path, which: str) -> None:
    (broken_repository / "trunk/1/model.onnx").write_bytes(b"would fail to load")
    with taken_port() as port:
        ports = {"http_port": 0, "grpc_port": 0, which: port}
        with pytest.raises(AddressInUse, match=f"Port {port} on 127.0.0.1 is in use.*or 0 for any free one"):
            BackgroundServer(broken_repository, **ports).__enter__()


def test_two_servers_do_not_share_a_port(repository: Repository) -> None:
    with BackgroundServer(repository, InMemoryEngine(LAYERS), http_port=0, grpc_port=0) as first:
        for ports in ({"http_port": first.http_port, "grpc_port": 0}, {"http_port": 0, "grpc_port": first.grpc_port}):
            with pytest.raises(AddressInUse):
                BackgroundServer(repository, InMemoryEngine(LAYERS), **ports).__enter__()
        assert get(first.http_address, "/v2/health/ready") == 200


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_of_another_machine_is_refused(repository: Repository, host: str) -> None:
    with pytest.raises(InvalidAddress, match="give an address of this machine"):
        BackgroundServer(repository, InMemoryEngine(LAYERS), host=host, http_port=0, grpc_port=0).__enter__()


def test_a_failed_start_leaves_nothing_behind(broken_repository: Path) -> None:
    (broken_repository / "mid/1/model.onnx").write_bytes(b"")
    server = Server(broken_repository, http_port=0, grpc_port=0)
    with pytest.raises(RepositoryError, match="Segment 'mid' cannot be loaded"):
        asyncio.run(server.start())
    for port in (server.http_port, server.grpc_port):
        with socket.create_server(("127.0.0.1", port)):
            pass
    with pytest.raises(RepositoryError, match="is not a folder"):
        BackgroundServer(broken_repository / "missing", http_port=0, grpc_port=0).__enter__()


def test_while_loading_it_lives_but_is_not_ready(repository: Repository) -> None:
    async def work() -> None:
        engine = SlowToStart()
        server = Server(repository, engine, http_port=0, grpc_port=0)
        starting = asyncio.create_task(server.start())
        while not await asyncio.to_thread(can_connect, server.http_port):
            await asyncio.sleep(0.01)
        statuses = [await asyncio.to_thread(get, server.http_address, path) for path in HEALTH]
        assert statuses == [200, 503, 503]
        engine.go_on.set()
        await starting
        statuses = [await asyncio.to_thread(get, server.http_address, path) for path in HEALTH]
        assert statuses == [200, 200, 200]
        await server.aclose()
        await server.aclose()  # a second time does nothing

    asyncio.run(work())


HEALTH = ("/v2/health/live", "/v2/health/ready", "/v2/models/late/ready")


def can_connect(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return port != 0 and probe.connect_ex(("127.0.0.1", port)) == 0


def test_what_is_in_flight_is_finished_and_what_is_new_is_refused(repository: Repository) -> None:
    engine = SlowEngine()
    answers: list[Any] = []

    def ask_http(address: str) -> None:
        with closing(http.client.HTTPConnection(address, timeout=20)) as connection:
            connection.request("POST", "/predict/late", png())
            answers.append(connection.getresponse().status)

    def ask_grpc(address: str) -> None:
        with tritonclient.grpc.InferenceServerClient(address) as client:
            tensor = tritonclient.grpc.InferInput("image", [1, *IMAGE.shape], "UINT8")
            tensor._raw_content = bytes(192)
            answers.append(client.infer("late", [tensor]).as_numpy("late").shape)

    server = BackgroundServer(repository, engine, http_port=0, grpc_port=0)
    server.__enter__()
    askers = [
        threading.Thread(target=ask_http, args=(server.http_address,)),
        threading.Thread(target=ask_grpc, args=(server.grpc_address,)),
    ]
    for asker in askers:
        engine.busy.clear()
        asker.start()
        assert engine.busy.wait(20)
    leaving = threading.Thread(target=server.__exit__, args=(None, None, None))
    leaving.start()
    while can_connect(server.http_port):
        time.sleep(0.01)
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client, pytest.raises(InferenceServerException):
        client.get_server_metadata(client_timeout=5)
    engine.go_on.set()
    for thread in (*askers, leaving):
        thread.join(20)
    assert sorted(answers, key=str) == [(1, 4), 200]


def test_a_server_in_somebodys_process_ends_in_time_and_says_what_it_leaves_behind(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    gate, at_the_gate = threading.Event(), threading.Event()

    class Stuck(InMemoryEngine):
        async def infer(self, plan: Any, inputs: Any, call: Any = None) -> Any:
            return await to_thread(lambda: at_the_gate.set() or gate.wait(600))

    with (
        BackgroundServer(repository, Stuck(LAYERS), http_port=0, grpc_port=0, grace_s=0.1) as server,
        closing(http.client.HTTPConnection(server.http_address, timeout=20)) as connection,
    ):
        connection.request("POST", "/predict/late", png())
        assert at_the_gate.wait(20)
    assert at_work()  # it has not waited for it
    assert "Still at work, in threads that end with their work or with this process: aside-" in caplog.text
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("aside") and not thread.daemon]
    gate.set()
    while at_work():
        time.sleep(0.01)


@pytest.mark.parametrize("grace_s", [0.0, 0.25])
def test_http_gives_requests_in_flight_the_time_that_it_was_told(grace_s: float, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        listener = listening_socket("127.0.0.1", 0)
        server = HttpServer(None, listener, grace_s)
        await server.start()
        await server.aclose()
        listener.close()
        assert server.config.timeout_graceful_shutdown == pytest.approx(grace_s, abs=0.01)

    asyncio.run(work())
    assert not [
        record for record in caplog.records if record.levelname == "ERROR"
    ]  # nothing was in flight, so nothing was cut off


def test_an_idle_connection_is_kept_for_longer_than_clients_and_balancers_keep_it() -> None:
    with EchoServer() as echo, closing(echo.connect(GET)) as raw:
        assert status_of(raw) == 200
        for _ in range(4):  # uvicorn would close it after 5 s
            echo.later(16)
        raw.sendall(GET)
        assert status_of(raw) == 200
    assert HttpLimits().keep_alive_s > 60  # what balancers keep, as a rule


def test_an_open_stream_is_told_that_the_server_is_leaving(repository: Repository) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    server = BackgroundServer(repository, InMemoryEngine(LAYERS), http_port=0, grpc_port=0, grace_s=60)
    server.__enter__()
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        tensor = tritonclient.grpc.InferInput("image", [1, *IMAGE.shape], "UINT8")
        tensor._raw_content = bytes(192)
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("late", [tensor])
        assert answers.get(timeout=20)[1] is None
        leaving = threading.Thread(target=server.__exit__, args=(None, None, None))
        leaving.start()
        assert "The server is shutting down" in answers.get(timeout=20)[1].message()  # though it asks for nothing
        leaving.join(20)
        assert not leaving.is_alive()
        client.stop_stream()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_0(repository: Repository, number: signal.Signals) -> None:
    code = f"from serving.server import run; run({str(repository.path)!r}, http_port=0, grpc_port=0, threads=1)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://(\S+) .*grpc://(\S+);", line)
        assert found is not None, process.stderr and process.stderr.read()
        assert get(found[1], "/v2/health/ready") == 200
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()


def test_the_next_start_parses_no_configuration(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        with BackgroundServer(
            repository.path, InMemoryEngine(LAYERS), http_port=0, grpc_port=0, configs=tmp_path / "cache"
        ) as server:
            assert get(server.http_address, "/v2/models/probe/ready") == 200
        monkeypatch.delattr("contract.repository.parsed_configs.parse_text", raising=False)
