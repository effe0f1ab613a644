"""A server that is measured beside others: its processes, which sleep while another one's turn is, and their memory (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.processor_time import processor_s
from benchmarks.peers.environments import RivalUnavailable
from serving.process.sockets import listening_socket

_STOP_S = 10.0
_SETTLE_S = 0.05


@dataclass(frozen=True)
class Processes:
    """A process and all that it has started, directly or not; and those that stand behind it, which sleep and wake with it."""

    root: int
    behind: tuple[int, ...] = ()

    def all(self) -> list[int]:
        """Return the processes that are there now, parents before children."""
        children: dict[int, list[int]] = {}
        for process, parent in _parents():
            children.setdefault(parent, []).append(process)
        found = [self.root, *self.behind]
        for process in found:  # grows on the way
            found.extend(children.get(process, ()))
        return found

    def pause(self) -> None:
        """Stop them all, parents first, so that none of them finds its children gone silent."""
        for process in self.all():
            _signal(process, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on, children first."""
        for process in reversed(self.all()):
            _signal(process, signal.SIGCONT)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Let them go on for a while."""
        self.resume()
        time.sleep(_SETTLE_S)
        try:
            yield
        finally:
            self.pause()

    def memory_bytes(self) -> int:
        """Return the resident memory of all of them; what several have in common counts once."""
        return sum(_proportional_bytes(process) for process in self.all())

    def processor_s(self) -> float:
        """Return the seconds of processor time, user and system, that all that are there now have taken since they began."""
        return processor_s(self.all())

    def end(self) -> None:
        """Ask the first to end, give it some seconds for it, and then end all that are left."""
        self.resume()
        left = {process: _started(process) for process in self.all()}
        _signal(self.root, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while time.monotonic() < deadline and _runs(self.root, left[self.root]):
            time.sleep(0.05)
        for process, started in left.items():
            if _runs(process, started):
                _signal(process, signal.SIGKILL)


@dataclass(frozen=True)
class _Log:
    """What a server has written, and whether it still runs."""

    file: Path
    process: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise RivalUnavailable with the last line when the server has ended."""
        code = self.process.poll()
        if code is not None:
            raise RivalUnavailable(f"it ended with exit code {code}: {self.last_line()}")

    def last_line(self) -> str:
        """Return the last line that says something."""
        lines = [line.strip() for line in self.file.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it wrote nothing"


@contextlib.contextmanager
def started(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[Processes, _Log]]:
    """Run `command` in `folder` with variables beside those of this process; end it, and what it has started, afterwards."""
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**_outer(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        processes = Processes(process.pid)
        try:
            yield processes, _Log(Path(file.name), process)
        finally:
            processes.end()
            process.wait()


def available_bytes() -> int:
    """Return the memory of the machine that another server could have."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def free_port() -> int:
    """Return a port that nothing listens on at the moment."""
    with listening_socket("127.0.0.1", 0) as found:
        return int(found.getsockname()[1])


def _outer() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"}


def _parents() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _fields(int(folder.name))):
            yield int(folder.name), int(fields[1])


def _fields(process: int) -> list[str]:
    """Return the fields of its stat after its name: state, parent, ...; none when it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _started(process: int) -> str:
    fields = _fields(process)
    return fields[19] if fields else ""


def _runs(process: int, started: str) -> bool:
    """Return whether it is still the one that was there at first, and no zombie."""
    fields = _fields(process)
    return bool(fields) and fields[0] != "Z" and fields[19] == started


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def _proportional_bytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
