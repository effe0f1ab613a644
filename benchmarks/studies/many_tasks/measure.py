"""Very many tasks on one backbone, more than fit into memory: `python -m benchmarks.studies.many_tasks --memory-limit-gb 12`.

Linear probes, and branches that own one tuned block (`--block`), with random weights, are served by `espalier serve --memory-limit`. There
are two servers, one after the other: one that has never seen the segments (its cache on disk is empty), and one that is started again. One
client asks every task (or `--asked` of them) once, then `--again` of them twice, one request after the other. An answer is timed by the
state that its segments were in: `new` (one is not in the cache), `known` (in the cache, but never open in this process), `closed` (open
before, closed for others), `open`. Then `--clients` ask at once, tasks drawn by Zipf's law. Memory is read after the start, after those
requests, and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks.harness.http_wire import HttpConnection, binary_body, infer_bytes
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.process_memory import ProcessMemory, memory_of_process
from benchmarks.harness.served import ServerProcess, served
from benchmarks.models.task_copies import Copies, copy_tasks
from benchmarks.studies.many_tasks.open_segments import OpenSegments
from benchmarks.studies.many_tasks.results import ManyTasks, ManyTasksOptions, MixedRequests, ServedTasks, Timed, describe
from contract.dtypes import NUMPY_DTYPES
from contract.repository import Repository, Task, read_repository

_SERVERS = ("new", "known")
_ZIPF_EXPONENT = 1.0


def _measure(repository: Repository, options: ManyTasksOptions) -> ManyTasks:
    """Return what serving all tasks of `repository` takes; each takes one input and gives one FP32 output. Raises RuntimeError."""
    with tempfile.TemporaryDirectory(prefix="espalier-cache-") as cache:
        servers = tuple(_serve(repository, options, name, Path(cache)) for name in _SERVERS)
        cache_bytes = _bytes_of(Path(cache))
    return ManyTasks(options, len(repository.tasks), len(repository.segments), _bytes_of(repository.path), cache_bytes, servers)


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _serve(repository: Repository, options: ManyTasksOptions, cache: str, folder: Path) -> ServedTasks:
    arguments = ["--log-level", "error"]
    arguments += ["--memory-limit", str(options.memory_limit)] if options.memory_limit else []
    arguments += ["--threads", str(options.threads)] if options.threads else []
    started = time.perf_counter()
    with served(repository.path, *arguments, environment={"XDG_CACHE_HOME": str(folder)}) as server:
        start_s = time.perf_counter() - started
        run = _Run(repository, options, server, cache)
        opened, after_start = len(run.state), memory_of_process(server.pid)
        answers, after_all = asyncio.run(run.ask_all())
        mix = asyncio.run(run.mix()) if options.seconds else None
        return ServedTasks(cache, start_s, opened, answers, mix, after_start, after_all, memory_of_process(server.pid))


class _Run:
    """One life of a server, while it lasts."""

    def __init__(self, repository: Repository, options: ManyTasksOptions, server: ServerProcess, cache: str) -> None:
        self._tasks = repository.tasks
        self._options = options
        self._server = server
        self._cache = cache
        self._seen: set[str] = set()
        self.state = OpenSegments(repository, options.memory_limit)
        (spec,) = next(iter(repository.tasks.values())).inputs
        rows = np.random.default_rng(0).integers(0, 256, (1, *spec.shape)).astype(NUMPY_DTYPES[spec.dtype])
        self._body = binary_body(spec, rows)

    async def ask_all(self) -> tuple[tuple[Timed, ...], ProcessMemory]:
        """Ask tasks once, and then some of them twice; return the answers, and the memory in between."""
        connection = await HttpConnection.open(self._server.http_host_port)
        tasks = _spread(list(self._tasks.values()), self._options.asked)
        answers = [await self._ask(connection, task) for task in tasks]
        after_all = memory_of_process(self._server.pid)
        for task in _spread(tasks, self._options.again):
            answers += [await self._ask(connection, task), await self._ask(connection, task)]
        await connection.close()
        return tuple(answers), after_all

    async def _ask(self, connection: HttpConnection, task: Task) -> Timed:
        opens = self.state.ask(task)
        state = "open" if not opens else "closed" if task.name in self._seen else self._cache
        self._seen.add(task.name)
        started = time.perf_counter()
        await self._answer(connection, task)
        return Timed(task.name, state, (time.perf_counter() - started) * 1000)

    async def _answer(self, connection: HttpConnection, task: Task) -> None:
        reply = await connection.ask(infer_bytes(task.name, *self._body))
        values = np.frombuffer(reply.tensors, "<f4")
        if reply.status != 200 or values.size != np.prod(task.outputs[0].shape) or not np.isfinite(values).all():
            raise RuntimeError(f"Task {task.name!r} does not answer: {reply.status} {reply.body[:200]!r}")

    async def mix(self) -> MixedRequests:
        """Ask tasks by Zipf's law: the one of rank n is asked in proportion to 1 / n."""
        generator = np.random.default_rng(0)
        tasks = list(self._tasks.values())
        generator.shuffle(tasks)
        shares = np.arange(1, len(tasks) + 1) ** -_ZIPF_EXPONENT
        drawn = _draws(generator, shares / shares.sum())
        latencies: list[float] = []
        opened = 0
        started = time.perf_counter()

        async def client() -> None:
            nonlocal opened
            connection = await HttpConnection.open(self._server.http_host_port)
            while time.perf_counter() < started + self._options.seconds:
                task = tasks[next(drawn)]
                opened += self.state.ask(task) > 0
                begin = time.perf_counter()
                await self._answer(connection, task)
                latencies.append((time.perf_counter() - begin) * 1000)
            await connection.close()

        await asyncio.gather(*(client() for _ in range(self._options.clients)))
        return MixedRequests(len(latencies), time.perf_counter() - started, opened, tuple(latencies))


def _spread(tasks: Sequence[Task], most: int | None) -> Sequence[Task]:
    """Return `most` of the tasks, or fewer, at equal distances."""
    return tasks[:: -(-len(tasks) // most)] if most else tasks if most is None else []


def _draws(generator: np.random.Generator, shares: np.ndarray) -> Iterator[int]:
    while True:
        yield from generator.choice(len(shares), 1000, p=shares).tolist()


@contextmanager
def _many_tasks(network: str, size: int, block: str, probes: int, branches: int, classes: int) -> Iterator[Repository]:
    """Yield a repository of so many linear probes, and branches that own `block`, of a timm network with random weights. Needs torch."""
    from benchmarks.models.synthetic import make_family, random_backbone

    wanted = [
        (subset, Copies(name, count)) for subset, name, count in (((), "probe", probes), ((block,), "branch", branches)) if count
    ]
    with tempfile.TemporaryDirectory(prefix="espalier-many-") as folder:
        family = make_family(random_backbone(network, size), [subset for subset, _ in wanted], classes, Path(folder))
        yield copy_tasks(family.repository.path, {f"task-{index}": copies for index, (_, copies) in enumerate(wanted)})


def main() -> None:
    """Make or take a repository, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, nargs="?", help="default: one that is made, and deleted at the end")
    parser.add_argument("--network", default="resnet50", help="a timm name")
    parser.add_argument("--size", type=int, default=224, help="pixels of the square input")
    parser.add_argument("--block", default="layer4.2", help="that every branch owns")
    parser.add_argument("--probes", type=int, default=1000)
    parser.add_argument("--branches", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--memory-limit-gb", type=float, help="`--memory-limit` of `espalier serve`; default: none")
    parser.add_argument("--asked", type=int, help="tasks that are asked one by one; default: all")
    parser.add_argument("--again", type=int, default=ManyTasksOptions.again, help="of them, that are asked again, twice")
    parser.add_argument("--seconds", type=float, default=ManyTasksOptions.seconds, help="of the mix; 0: none")
    parser.add_argument("--clients", type=int, default=ManyTasksOptions.clients, help="of the mix")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help=".svg or .png")
    given = parser.parse_args()
    limit = round(given.memory_limit_gb * 1e9) if given.memory_limit_gb else None
    options = ManyTasksOptions(limit, given.asked, given.again, given.seconds, given.clients, given.threads)
    if given.repository:
        found = _measure(read_repository(given.repository), options)
    else:
        with _many_tasks(given.network, given.size, given.block, given.probes, given.branches, given.classes) as repository:
            found = _measure(repository, options)
    lines = [f"{describe_machine()}, ONNX Runtime {ort.__version__}", *describe(found)]
    print("\n".join(lines))
    if given.json:
        command = {name: str(value) for name, value in vars(given).items()}
        given.json.write_text(json.dumps({"command": command, "summary": lines, **asdict(found)}, indent=1))
    if given.plot:
        from benchmarks.studies.many_tasks.plot import write_plot

        write_plot(found, given.plot)
