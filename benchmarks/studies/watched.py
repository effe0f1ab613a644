"""A server that watches its repository, under load, while tasks change: `python -m benchmarks.studies.watched --seconds 600`.

Clients ask two tasks all the time, over HTTP, an `espalier serve REPO --watch` in a process of its own. Meanwhile one of them is replaced
and rolled back on disk, and a third comes and goes, each as `deploy`, `rollback` and `remove --gc` do it; nobody tells the server. Exit
code 1 where a request failed or was answered with what no version of its task answers, or where a change was not served in time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.harness.http_wire import KeptConnection, request_bytes
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.served import ServerProcess, served
from benchmarks.models.tiny import SIZE, write_tiny_forks
from contract.preprocessing import Preprocessing
from exporter.deploy import deploy, rollback
from exporter.remove import remove_tasks
from exporter.sources.task_model import Sources, TaskModel

_STEADY, _CHANGING, _VISITOR = "task-0", "task-1", "visitor"
_NEXT = "task-2"  # whose network the changing task has now and then, and the visitor
_IN_TIME_S = 60.0


@dataclass(frozen=True)
class Watched:
    """What came of it. faults: a line each. changes: on disk, each of which the server served within `slowest_s`."""

    seconds: float
    requests: int
    changes: int
    slowest_s: float
    faults: tuple[str, ...]

    def __str__(self) -> str:
        head = f"{self.requests:,} requests in {self.seconds:.0f} s, {self.changes} changes on disk, the slowest served after "
        return "\n".join(
            (f"{head}{self.slowest_s:.1f} s; faults: {len(self.faults)}", *(f"  {line}" for line in self.faults[:20]))
        )


def measure(seconds: float, clients: int, folder: Path) -> Watched:
    """Return what so many seconds of load and changes do to a server of tiny tasks, whose repository is made in `folder`."""
    repository, files = write_tiny_forks(folder, 3)
    remove_tasks(repository.path, [_NEXT], gc=True)
    with served(repository.path, "--watch", "--no-segment-cache", "--log-level", "error") as server:
        return asyncio.run(_Run(server, repository.path, files[_NEXT]).result(seconds, clients))


class _Run:
    """One of these, while it lasts. next_file: the network that comes and goes."""

    def __init__(self, server: ServerProcess, path: Path, next_file: Path) -> None:
        self._server = server
        self._path = path
        self._next_file = next_file
        self._requests = self._changes = 0
        self._slowest_s = 0.0
        self._faults: list[str] = []
        self._right: dict[str, set[bytes]] = {}

    async def result(self, seconds: float, clients: int) -> Watched:
        """Return what came of so many seconds, with so many clients for each of the two tasks."""
        asking = KeptConnection(self._server.http_host_port)
        for task in (_STEADY, _CHANGING):
            self._right[task] = {await self._outputs(asking, task)}
        await self._change(asking, self._deployed(_CHANGING))
        self._right[_CHANGING].add(await self._outputs(asking, _CHANGING))
        began = time.perf_counter()
        loads = [asyncio.create_task(self._ask(task, began + seconds)) for task in (_STEADY, _CHANGING) for _ in range(clients)]
        for change in itertools.cycle(self._round()):
            await self._change(asking, change)
            if time.perf_counter() - began >= seconds or self._faults:
                break
        await asyncio.gather(*loads)
        await asking.close()
        return Watched(time.perf_counter() - began, self._requests, self._changes, self._slowest_s, tuple(self._faults))

    def _round(self) -> Sequence[Callable[[], object]]:
        """Return changes, of which each is another state of what is served, and the last leads back to the first."""
        back = partial(rollback, self._path, _CHANGING)
        return back, self._deployed(_VISITOR), back, partial(remove_tasks, self._path, [_VISITOR], gc=True)

    def _deployed(self, task: str) -> Callable[[], object]:
        how = Preprocessing(height=SIZE, width=SIZE)
        labels = tuple(f"class {index}" for index in range(4))
        load = partial(_load, self._next_file, labels, how)
        return partial(deploy, self._path, Sources({task: load}))

    async def _change(self, connection: KeptConnection, change: Callable[[], object]) -> None:
        """Make a change on disk, and wait until what is served is another."""
        before = await self._tasks(connection)
        await asyncio.to_thread(change)
        began = time.perf_counter()
        while await self._tasks(connection) == before:
            if time.perf_counter() - began > _IN_TIME_S:
                self._faults.append(f"change {self._changes} was not served within {_IN_TIME_S:.0f} s")
                return
            await asyncio.sleep(0.02)
        self._changes += 1
        self._slowest_s = max(self._slowest_s, time.perf_counter() - began)

    async def _tasks(self, connection: KeptConnection) -> Mapping[str, object]:
        """Return version and segments of each task that is served."""
        reply = await connection.ask(request_bytes("GET", "/tasks"))
        return {task["name"]: (task["version"], task["segments"]) for task in json.loads(reply.body)["tasks"]}

    async def _ask(self, task: str, end: float) -> None:
        connection = KeptConnection(self._server.http_host_port)
        while time.perf_counter() < end and not self._faults:
            try:
                answer = await self._outputs(connection, task)
            except (OSError, EOFError, ValueError) as error:
                self._faults.append(f"{task}: {error!r}")
                break
            if answer not in self._right[task]:
                self._faults.append(f"{task} was answered with what none of its versions answers")
            self._requests += 1
        await connection.close()

    async def _outputs(self, connection: KeptConnection, task: str) -> bytes:
        """Return the values of `task` for one image, to four digits. Raises ValueError where it is not answered."""
        image = (np.arange(SIZE * SIZE * 3) % 251).tolist()
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, SIZE, SIZE, 3], "data": image}
        body = json.dumps({"inputs": [tensor]}).encode()
        reply = await connection.ask(request_bytes("POST", f"/v2/models/{task}/infer", body=body))
        if reply.status != 200:
            raise ValueError(f"{reply.status} {reply.body.decode(errors='replace')}")
        (output,) = json.loads(reply.body)["outputs"]
        return np.round(np.asarray(output["data"], np.float64), 4).tobytes()


def _load(file: Path, labels: tuple[str, ...], how: Preprocessing) -> TaskModel:
    return TaskModel(ir.load(file), labels, how)


def main() -> None:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=2, help="connections for each of the two tasks")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="espalier-watched-") as folder:
        found = measure(given.seconds, given.clients, Path(folder))
    print(f"{found}\n{describe_machine()}")
    raise SystemExit(1 if found.faults else 0)


if __name__ == "__main__":
    main()
