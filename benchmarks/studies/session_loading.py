"""How long a segment takes to its first answer, and what it keeps resident: `python -m benchmarks.studies.session_loading REPOSITORY`.

Five ways, each in a fresh process: uncached (from the segment's own file), new (an empty cache: optimised, written, opened from
there), known (the cache holds it, and both files are hashed), hashed (an earlier process has hashed them since the machine started) and
reopened (the same process had it open before). `--copies 1000 --segment NAME` does so for as
many segments like NAME, each with weights of its own, as many tasks on one backbone have them. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from benchmarks.harness.machine import describe_machine
from benchmarks.harness.stopwatch import run_fresh
from benchmarks.models.segment_model import load_whole
from contract.dtypes import NUMPY_DTYPES
from contract.repository import Repository, read_repository
from serving.engines.onnxruntime.providers import provider_works
from serving.engines.onnxruntime.runtime import session_store
from serving.engines.sessions.runtime import SegmentFile, SessionStoreOptions
from serving.engines.sessions.store import SessionStore

_WAYS = ("uncached", "new", "known", "hashed", "reopened")
_SETTLE_S = 2.5  # hashes of files that were written a moment ago are not kept


@dataclass(frozen=True)
class _Loading:
    """One way of loading some segments, one after the other.

    first_ms: from the call to the first answer for one row, the opening and its check included. run_ms: a later answer.
    cpu_ms: of the process, for all first answers.
    resident, anonymous: bytes that all of them added to the process; anonymous memory is its own, the rest is mapped files.
    counted: what the session store says that they take.
    """

    way: str
    first_ms: tuple[float, ...]
    run_ms: tuple[float, ...]
    cpu_ms: float
    resident: int
    anonymous: int
    counted: int

    def __str__(self) -> str:
        first = f"{statistics.median(self.first_ms):9.1f} {max(self.first_ms):9.1f} {statistics.median(self.run_ms):9.2f}"
        memory = " ".join(f"{value / len(self.first_ms) / 1e6:9.2f}" for value in (self.resident, self.anonymous, self.counted))
        return f"{self.way:10} {first} {self.cpu_ms / len(self.first_ms):9.1f} {memory}"


def _compare_loading(repository: Path, names: Sequence[str], threads: int) -> list[_Loading]:
    """Measure the segments `names` of `repository` in every way."""
    with tempfile.TemporaryDirectory() as cache:
        return list(_measure_all(repository, names, Path(cache) / "segments", threads))


def _measure_all(repository: Path, names: Sequence[str], cache: Path, threads: int) -> Iterator[_Loading]:
    for way in _WAYS:
        if way == "hashed":
            time.sleep(_SETTLE_S)
            _measure_fresh(way, repository, names, cache, threads)  # the earlier process
        yield _measure_fresh(way, repository, names, cache, threads)


def _make_copies(repository: Repository, name: str, count: int, folder: Path) -> list[str]:
    """Write `count` models like segment `name` into `folder`, each with weights of its own; return their names."""
    model = load_whole(repository.model_file(name))
    (weight,) = sorted(model.graph.initializer, key=lambda tensor: numpy_helper.to_array(tensor).nbytes)[-1:]
    values = numpy_helper.to_array(weight)
    for index in range(count):
        weight.CopyFrom(numpy_helper.from_array(values * values.dtype.type(1 + 1e-6 * index), weight.name))
        file = folder / f"{name}-{index:04}" / "1" / "model.onnx"
        file.parent.mkdir(parents=True)
        onnx.save(model, file)
    return [f"{name}-{index:04}" for index in range(count)]


def _measure_fresh(way: str, repository: Path, names: Sequence[str], cache: Path, threads: int) -> _Loading:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as job:
        arguments = {"way": way, "repository": str(repository), "names": list(names), "cache": str(cache), "threads": threads}
        json.dump(arguments, job)
        job.flush()
        data = run_fresh("benchmarks.studies.session_loading", "--job", job.name)
    return _Loading(**{**data, "first_ms": tuple(data["first_ms"]), "run_ms": tuple(data["run_ms"])})


def _measure(way: str, repository: str, names: Sequence[str], cache: str, threads: int) -> _Loading:
    files = list(_files(Path(repository), names))
    inputs = [[np.zeros((1, *spec.shape), NUMPY_DTYPES[spec.dtype]) for spec in file.segment.inputs] for file in files]
    folder = None if way == "uncached" else Path(cache)
    provider_works("cpu")  # opens a tiny session: the library itself is in memory
    before = _memory()
    options = SessionStoreOptions(threads=threads, provider="cpu", cache_folder=folder, record_hashes=way == "hashed")
    store = session_store(options)
    if way == "reopened":
        store.open(files)
        store.close_all()
    store.declare(files)
    cpu_s = time.process_time()
    first = [_run_ms(store, file, rows) for file, rows in zip(files, inputs, strict=True)]
    cpu_ms = (time.process_time() - cpu_s) * 1000
    again = [_run_ms(store, file, rows) for file, rows in zip(files, inputs, strict=True)]
    after = _memory()
    counted = sum(store.loaded().values())
    return _Loading(way, tuple(first), tuple(again), cpu_ms, after[0] - before[0], after[1] - before[1], counted)


def _files(repository: Path, names: Sequence[str]) -> Iterator[SegmentFile]:
    """Yield segments of a repository, or copies of one beside the link to it that `_make_copies` was given."""
    source = read_repository(repository / "source" if (repository / "source").exists() else repository)
    for name in names:
        segment = source.segments.get(name) or replace(source.segments[name.rpartition("-")[0]], name=name)
        yield SegmentFile(segment, (source.path if name in source.segments else repository) / name / "1" / "model.onnx")


def _run_ms(store: SessionStore[Any], file: SegmentFile, rows: list[Any]) -> float:
    started = time.perf_counter()
    store.run(file.segment.name, rows)
    return (time.perf_counter() - started) * 1000


def _memory() -> tuple[int, int]:
    """Return the bytes resident, and those of them that no file holds."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines}
    return sizes["Rss:"], sizes["Anonymous:"]


def main() -> None:
    """Measure a repository's segments, or copies of one, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path, nargs="?")
    parser.add_argument("--segment", action="append", help="only this one (again for more)")
    parser.add_argument("--copies", type=int, default=0, help="measure so many segments like the one named by --segment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(asdict(_measure(**json.loads(arguments.job.read_text())))))
        return
    repository = read_repository(arguments.repository)
    names = arguments.segment or list(repository.segments)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.repository.resolve()
        if arguments.copies:
            (Path(folder) / "source").symlink_to(path)
            names = _make_copies(repository, names[0], arguments.copies, Path(folder))
            path = Path(folder)
        results = _compare_loading(path, names, arguments.threads)
    print(f"{describe_machine()}, ONNX Runtime {ort.__version__}; {len(names)} segments, {arguments.threads} threads")
    print("           first ms, largest,  later ms, CPU ms; MB per segment: resident, anonymous, counted")
    for result in results:
        print(result)
    if arguments.json:
        data = {"machine": describe_machine(), "onnxruntime": ort.__version__, "segments": names}
        arguments.json.write_text(json.dumps({**data, "results": [asdict(result) for result in results]}, indent=1))


if __name__ == "__main__":
    main()
