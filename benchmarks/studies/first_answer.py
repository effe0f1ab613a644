"""How long a deploy takes to the first answer, on a server without other work.

`python -m benchmarks.studies.first_answer REPOSITORY --task NAME`

An `espalier serve` of a copy of the repository, in a process of its own. In turn, `--rounds` times each:
  asked   the task is served and asked; no deploy
  known   unloaded, then loaded and asked: its segments are in the cache, and were open in this process before
  new     the same, but nothing is known of it: its configurations and models are written anew and the cache is emptied
The time is from the call that loads to the answer over a new connection. Prints medians and spread, and writes JSON and a plot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import onnxruntime as ort

from benchmarks.deploy.timeline import check_answer, make_ask
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.open_loop import Ask
from benchmarks.harness.served import ServerProcess, served
from contract.repository import Repository, read_repository
from serving.client import control_model

WAYS = ("asked", "known", "new")
_GOALS_MS = {"known": 100.0, "new": 1000.0}
_SETTLE_S = 0.3  # until what an unload lets go of is closed


@dataclass(frozen=True)
class _FirstAnswers:
    """One way: milliseconds from the call to the server's word that the task is loaded, and to the first answer; one per round."""

    way: str
    load_ms: tuple[float, ...]
    first_ms: tuple[float, ...]

    def __str__(self) -> str:
        goal = f"   goal {_GOALS_MS[self.way]:g}" if self.way in _GOALS_MS else ""
        return f"{self.way:6} load {_spread(self.load_ms)}   to the first answer {_spread(self.first_ms)}{goal}"


def _measure_ways(repository: Path, name: str, rounds: int, threads: int | None = None) -> list[_FirstAnswers]:
    """Measure task `name` of the repository in every way."""
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(repository, Path(folder) / "repository"))
        cache = Path(folder) / "cache"
        environment = {"ESPALIER_ADMIN_TOKEN": token, "XDG_CACHE_HOME": str(cache)}
        arguments = ["--threads", str(threads)] if threads else []
        with served(copy, *arguments, "--log-level", "error", environment=environment) as server:
            return asyncio.run(_measure(read_repository(copy), name, rounds, server, token, cache))


async def _measure(
    repository: Repository, name: str, rounds: int, server: ServerProcess, token: str, cache: Path
) -> list[_FirstAnswers]:
    ask = await make_ask(server.http_host_port, repository.tasks[name])
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way in WAYS:
            if way != "asked":
                await asyncio.to_thread(control_model, f"http://{server.http_address}", name, "unload", token)
            if way == "new":
                make_new(repository, name, cache)
            await asyncio.sleep(_SETTLE_S)
            times = await _time(server, ask, way, token)
            if number:  # the first round warms up
                found[way].append(times)
    return [_FirstAnswers(way, *(tuple(values) for values in zip(*found[way], strict=True))) for way in WAYS]


def make_new(repository: Repository, name: str, cache: Path) -> None:
    """Write what only task `name` has anew, so that nobody knows it, and empty the cache of segments."""
    others = {step.segment for task in repository.tasks.values() if task.name != name for step in task.steps}
    own = [step.segment for step in repository.tasks[name].steps if step.segment not in others]
    for folder in (name, *own):
        with (repository.path / folder / "config.pbtxt").open("a") as config:
            config.write("\n")
        for model in (repository.path / folder).glob("1/model.onnx"):
            model.write_bytes(model.read_bytes())
    for entry in cache.glob("espalier/segments/*"):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


async def _time(server: ServerProcess, ask: Ask, way: str, token: str) -> tuple[float, float]:
    started = time.perf_counter()
    if way != "asked":
        await asyncio.to_thread(control_model, f"http://{server.http_address}", ask.task, "load", token)
    loaded = time.perf_counter()
    await check_answer(server, ask)
    return (loaded - started) * 1000, (time.perf_counter() - started) * 1000


def _spread(values: tuple[float, ...]) -> str:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else (*values, *values, *values)
    return f"{middle:7.1f} ms ({low:.1f}-{high:.1f}, largest {max(values):.1f})"


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--task", help="that is deployed; default: the last")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", action="append", default=[], help=".svg or .png; again for more")
    given = parser.parse_args()
    name = given.task or list(read_repository(given.repository).tasks)[-1]
    results = _measure_ways(given.repository, name, given.rounds, given.threads)
    print(f"{name}, {given.rounds} rounds; medians (quartiles); {describe_machine()}, ONNX Runtime {ort.__version__}")
    print("\n".join(map(str, results)))
    if given.json:
        machine = {"machine": describe_machine(), "onnxruntime": ort.__version__}
        given.json.write_text(json.dumps({**machine, "task": name, "results": [asdict(result) for result in results]}, indent=1))
    if given.plot:
        from benchmarks.deploy.plot import write_first_answers

        for file in given.plot:
            write_first_answers([(result.way, result.first_ms) for result in results], _GOALS_MS, file)


if __name__ == "__main__":
    main()
