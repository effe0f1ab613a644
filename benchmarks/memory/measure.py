"""Resident memory: a shared repository against separate networks, each measured in a fresh process.

Run as `python -m benchmarks.memory.measure shared FEED REPOSITORY [TASK ...]` (default: all tasks) or `... separate FEED FILE [FILE ...]`;
REPOSITORY may also be a pickled `Repository` of few of many tasks, so that the descriptions of the others do not count. It loads what
these tasks need, answers one request, and prints the resident bytes that this took beyond the bare process. FEED: a file of numpy arrays
(.npz) by the names of the inputs, or "" for zeros.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks.models.separate import open_network
from benchmarks.models.some_tasks import only_tasks
from contract.dtypes import NUMPY_DTYPES, Array
from contract.plan import make_plan
from contract.repository import Repository, read_repository
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions
from serving.process.memory import malloc_trim


@dataclass(frozen=True)
class MemoryComparison:
    """Resident bytes beyond the bare process after one request for all tasks, and bytes of the model files on disk."""

    shared_resident: int
    separate_resident: int
    shared_disk: int
    separate_disk: int


def compare_memory(repository: Path, networks: Mapping[str, Path]) -> MemoryComparison:
    """Measure `repository` against `networks` (whole task models as ONNX files, by task) in two fresh processes."""
    return MemoryComparison(
        shared_resident=shared_resident(repository),
        separate_resident=separate_resident(networks.values()),
        shared_disk=sum(file.stat().st_size for file in repository.rglob("*") if file.is_file()),
        separate_disk=sum(path.stat().st_size for path in networks.values()),
    )


def shared_resident(repository: Path, tasks: Iterable[str] = (), *, feed: Path | None = None) -> int:
    """Return the resident bytes that `tasks` of the repository, or all, take in a fresh process.

    repository: its folder, or a pickled one. feed: the request (.npz); None: zeros.
    """
    return _measure("shared", feed, str(repository), *tasks)


def separate_resident(networks: Iterable[Path], *, feed: Path | None = None) -> int:
    """Return the resident bytes that whole networks take in a fresh process, each in a session of its own. feed: as above."""
    return _measure("separate", feed, *map(str, networks))


def _measure(mode: str, feed: Path | None, *arguments: str) -> int:
    command = [sys.executable, "-m", "benchmarks.memory.measure", mode, str(feed or ""), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(result.stdout)["resident_bytes"])


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _use_shared(path: Path, tasks: Sequence[str], feed: Mapping[str, Array]) -> object:
    whole = read_repository(path) if path.is_dir() else _unpickled(path)
    repository = only_tasks(whole, tasks or list(whole.tasks))
    engine = EmbeddedEngine(repository, options=EngineOptions(SessionStoreOptions(1, provider="cpu")))
    inputs = feed or {
        spec.name: np.zeros((1, *spec.shape), NUMPY_DTYPES[spec.dtype]) for spec in next(iter(repository.tasks.values())).inputs
    }
    with asyncio.Runner() as runner:
        runner.run(engine.start())
        runner.run(engine.infer(make_plan(repository, list(repository.tasks)), inputs))
    return engine


def _unpickled(file: Path) -> Repository:
    found: Repository = pickle.loads(file.read_bytes())
    return found


def _use_separate(paths: list[Path], feed: Mapping[str, Array]) -> object:
    sessions = []
    for path in paths:
        sessions.append(open_network(path, threads=1))
        malloc_trim()  # as the engine does: what optimising a network leaves free is no memory that it needs
    for session in sessions:
        session.run(None, {spec.name: feed[spec.name] for spec in session.get_inputs()} if feed else _zeros(session))
    return sessions


def _zeros(session: ort.InferenceSession) -> dict[str, Array]:
    (spec,) = session.get_inputs()
    dtype = np.uint8 if spec.type == "tensor(uint8)" else np.float32
    return {spec.name: np.zeros((1, *spec.shape[1:]), dtype)}


def main() -> None:
    """Measure what the command line says in this process and print it as JSON."""
    mode, file, path, *others = sys.argv[1:]
    feed: dict[str, Array] = dict(np.load(file)) if file else {}
    before = _resident_bytes()
    loaded = _use_shared(Path(path), others, feed) if mode == "shared" else _use_separate([Path(path), *map(Path, others)], feed)
    print(json.dumps({"resident_bytes": _resident_bytes() - before}))
    del loaded  # alive until it has been measured


if __name__ == "__main__":
    main()
