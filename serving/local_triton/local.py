"""A Triton server as a process of this machine: started, waited for, stopped, or kept in the foreground until a signal ends it."""

from __future__ import annotations

import http.client
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from serving.local_triton import onnx_backend
from serving.local_triton.command import Ports, TritonOptions, local_command
from serving.local_triton.environment import TritonEnvironment, set_up
from serving.local_triton.errors import NoSuchRepository, TritonFailed
from serving.process.sockets import listening_socket

_HOST = "127.0.0.1"
_POLL_S = 0.05
_LAST_LINES = 400
# In Triton's log, the first of these to be found says why it did not start. What is quoted has its line breaks written as \n.
_CAUSES = (
    re.compile(r"(?P<cause>failed to load '[^']*' version .*)\"$"),
    re.compile(r"(?P<cause>Poll failed for model directory .*)\"$"),
    re.compile(r"(?P<cause>failed to start .*)\"$"),
    re.compile(r"^error: (?P<cause>.*)", re.IGNORECASE),
)
# Asks the kernel to end this process with the one that started it, however that one ends, and becomes tritonserver.
_LAUNCHER = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_Log = Callable[[str], None]


@dataclass(frozen=True)
class TritonAddresses:
    """Where a Triton listens: `host:port` as tritonclient wants it."""

    http: str
    grpc: str
    metrics: str


class LocalTriton:
    """Serves `repository` with Triton on this machine, on the loopback.

    `log` gets every line that Triton writes, from a thread of its own. Triton ends with the thread that called `start`, so that nothing
    is left of it when a program is killed.
    """

    def __init__(
        self,
        repository: Path,
        options: TritonOptions | None = None,
        environment: TritonEnvironment | None = None,
        log: _Log = lambda line: None,
    ) -> None:
        self._repository = Path(repository)
        self._options = options or TritonOptions()
        self._environment = environment
        self._log = log
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._regions = f"espalier-triton-{os.getpid()}-{secrets.token_hex(4)}-"
        self._open = ExitStack()
        self._process: subprocess.Popen[str] | None = None
        self._ports = Ports(0, 0, 0)

    @property
    def addresses(self) -> TritonAddresses:
        """Return where it listens, once it is started."""
        return TritonAddresses(*(f"{_HOST}:{port}" for port in (self._ports.http, self._ports.grpc, self._ports.metrics)))

    @property
    def http_url(self) -> str:
        """Return its address as a URL."""
        return f"http://{self.addresses.http}"

    @property
    def grpc_url(self) -> str:
        """Return its address for gRPC as a URL."""
        return f"grpc://{self.addresses.grpc}"

    @property
    def process_id(self) -> int:
        """Return the number of its process, which is also that of its process group; the models' processes belong to it."""
        assert self._process is not None, "start it first"
        return self._process.pid

    def start(self, ready_s: float = 300.0) -> None:
        """Start it and wait, `ready_s` seconds at most, until every model that is to be loaded can be asked.

        Sets the environment up if need be. Raises TritonUnavailable, NoSuchRepository, AddressInUse, and TritonFailed with the reason
        from Triton's log; then nothing is left running.
        """
        if not self._repository.is_dir():
            raise NoSuchRepository(self._repository)
        environment = self._environment or set_up()
        try:
            self._start(environment)
            self._wait_until_ready(time.monotonic() + ready_s)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Let it finish what is in flight and end; when that takes longer than `exit_s` seconds by far, end it at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._options.exit_s + 10)
        self.kill()

    def kill(self) -> None:
        """End it at once, models' processes and all. Does nothing when it has ended."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._open.close()

    def wait(self) -> int:
        """Wait until it has ended, and return its exit code; negative: the signal that ended it."""
        assert self._process is not None, "start it first"
        return self._process.wait()

    def cause(self) -> str:
        """Return why it failed, as far as its log says so."""
        return find_cause([*self._lines])

    def _start(self, environment: TritonEnvironment) -> None:
        backends = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="espalier-triton-")))
        self._open.callback(_remove_regions, self._regions)
        _lay_out_backends(backends, environment)
        self._ports = _free_ports(self._options)
        command = local_command(environment, backends, self._repository, self._ports, self._options, self._regions)
        threads = str(self._options.threads or 1)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command],
            env=environment.variables(os.environ) | {onnx_backend.THREADS_VARIABLE: threads},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for whoever supervises it
        )
        reader = threading.Thread(target=self._read_log, args=(self._process,), name="triton-log", daemon=True)
        reader.start()
        self._open.callback(reader.join, 5.0)

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._lines.append(line.rstrip("\n"))
                self._log(line.rstrip("\n"))

    def _wait_until_ready(self, deadline: float) -> None:
        assert self._process is not None
        while not _is_ready(self._ports.http):
            code = self._process.poll()
            if code is not None:
                self._open.close()  # so that all of its log is there
                raise TritonFailed(f"ended before it was ready (exit code {code})", self.cause())
            if time.monotonic() > deadline:
                raise TritonFailed("was not ready in time", self.cause() or "nothing in its log says why")
            time.sleep(_POLL_S)


@contextmanager
def local_triton(
    repository: Path, options: TritonOptions | None = None, log: _Log = lambda line: None, ready_s: float = 300.0
) -> Iterator[LocalTriton]:
    """Yield a Triton that serves `repository`, ready; stop it at the end. Raises what `LocalTriton.start` raises."""
    triton = LocalTriton(repository, options, log=log)
    triton.start(ready_s)
    try:
        yield triton
    finally:
        triton.stop()


class Signalled(BaseException):
    """A signal has come; like KeyboardInterrupt no error, so that nothing on the way takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGINT raise Signalled in the main thread, from which this must be called."""

    def raise_signalled(number: int, frame: FrameType | None) -> None:
        raise Signalled(number)

    before = {number: signal.signal(number, raise_signalled) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_until_signalled(triton: LocalTriton, ready: Callable[[], None]) -> None:
    """Start `triton`, call `ready`, and wait until a signal stops it, after which what is in flight is finished.

    A signal before it is ready, and a second one, end it at once and are raised as Signalled. Raises TritonFailed when it ends by
    itself: it is not started again, because why it ended is for a person to find out; systemd and Kubernetes restart what should be.
    """
    with _signals_raise():
        triton.start()
        try:
            ready()
            code = triton.wait()
        except Signalled:
            triton.stop()
            return
        finally:
            triton.kill()
        raise TritonFailed(f"ended by itself (exit code {code})", triton.cause())


def _lay_out_backends(folder: Path, environment: TritonEnvironment) -> None:
    """Make `folder` what Triton takes for its backends: the Python backend of the wheel, and ours for ONNX, which is based on it."""
    (folder / "python").symlink_to(environment.python_backend, target_is_directory=True)
    (folder / "onnxruntime").mkdir()
    shutil.copyfile(onnx_backend.__file__, folder / "onnxruntime" / "model.py")


def find_cause(lines: Sequence[str]) -> str:
    """Return what Triton's log gives as the reason of a failure, in one line; "" if nothing looks like one."""
    for pattern in _CAUSES:
        for line in lines:
            found = pattern.search(line)
            if found is not None:
                cause, _, _traceback = found["cause"].partition("\\n\\nAt:")
                return " ".join(cause.replace("\\n", " ").split()).rstrip(".")
    return ""


def _free_ports(options: TritonOptions) -> Ports:
    """Return the ports of `options`, free ones where they are 0: all held at once, so that they differ, and let go for Triton."""
    with ExitStack() as held:
        wanted = (options.http_port, options.grpc_port, options.metrics_port)
        sockets = [held.enter_context(listening_socket(_HOST, port)) for port in wanted]
        return Ports(*(socket.getsockname()[1] for socket in sockets))


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _remove_regions(prefix: str) -> None:
    """Delete the shared memory of models whose processes were killed; those that end by themselves leave none."""
    for file in Path("/dev/shm").glob(f"{prefix}*"):
        file.unlink(missing_ok=True)
