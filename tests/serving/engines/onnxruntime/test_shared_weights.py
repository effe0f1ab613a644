"""Weights that segments of a repository share are held in memory once, packed ones among them, and the cache keeps them once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from contract.errors import RepositoryError
from contract.repository import Repository, read_repository
from exporter.export import ExportOptions, export_repository
from exporter.remove import remove_tasks
from serving.engines.onnxruntime.runtime import session_store
from serving.engines.onnxruntime.segment_cache import SegmentCache
from serving.engines.onnxruntime.session import open_session, session_options
from serving.engines.sessions.runtime import SegmentFile, SessionStoreOptions
from tests.exporter.biased import WIDTH, biased
from tests.exporter.test_recut import sources

pytestmark = pytest.mark.usefixtures("unsynced")

CPU = ("CPUExecutionProvider",)
MATRIX = WIDTH * WIDTH * 4
ROWS = {"input": np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32)}


def options() -> ort.SessionOptions:
    return session_options(1)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    tasks = {"one": biased(1, 1), "two": biased(2, 2)}
    return export_repository(sources(tasks), ExportOptions(tmp_path / "repo")).repository


def make_cache(folder: Path, limit: int = 10**9) -> SegmentCache:
    return SegmentCache(folder, CPU, limit, min_bytes=0)


def open_all(repository: Repository, cache: SegmentCache) -> dict[str, ort.InferenceSession]:
    opened = {name: cache.open(repository.model_file(name), options) for name in repository.segments}
    assert all(opened.values())
    return {name: session for name, session in opened.items() if session is not None}


def pooled(folder: Path) -> Mapping[str, int]:
    return {file.name: file.stat().st_nlink for file in (folder / "weights").iterdir()}


def test_two_entries_map_the_same_files_and_answer_as_their_models_to_the_bit(repository: Repository, tmp_path: Path) -> None:
    sessions = open_all(repository, make_cache(tmp_path / "cache"))
    for name, session in sessions.items():
        expected = open_session(repository.model_file(name), options(), CPU).run(None, ROWS)[0]
        np.testing.assert_array_equal(session.run(None, ROWS)[0], expected)
    found = pooled(tmp_path / "cache")
    assert list(found.values()) == [3, 3]  # of both entries, and the pool's own
    maps = Path("/proc/self/maps").read_text()
    assert all(name in maps for name in found)


def test_a_known_entry_is_not_made_again(repository: Repository, tmp_path: Path) -> None:
    open_all(repository, make_cache(tmp_path / "cache"))
    before = {file: file.stat().st_ino for file in (tmp_path / "cache").rglob("*.onnx")}
    open_all(repository, make_cache(tmp_path / "cache"))
    assert {file: file.stat().st_ino for file in (tmp_path / "cache").rglob("*.onnx")} == before


def test_other_data_under_the_same_model_is_another_entry(repository: Repository, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache")
    first = next(iter(repository.segments))
    before = cache.open(repository.model_file(first), options)
    (data,) = repository.model_file(first).parent.glob("*.bin")
    content = np.frombuffer(data.read_bytes(), np.float32) * 2
    data.unlink()
    data.write_bytes(content.tobytes())
    after = make_cache(tmp_path / "cache").open(repository.model_file(first), options)
    assert before is not None
    assert after is not None
    expected = open_session(repository.model_file(first), options(), CPU).run(None, ROWS)[0]
    np.testing.assert_array_equal(after.run(None, ROWS)[0], expected)
    assert np.abs(before.run(None, ROWS)[0] - expected).max() > 0.1


def test_a_damaged_weight_is_made_again(repository: Repository, tmp_path: Path) -> None:
    open_all(repository, make_cache(tmp_path / "cache"))
    for file in (tmp_path / "cache" / "weights").iterdir():
        content = bytearray(file.read_bytes())
        content[7] ^= 1
        file.chmod(0o600)
        file.write_bytes(content)
    sessions = open_all(repository, make_cache(tmp_path / "cache"))
    for name, session in sessions.items():
        expected = open_session(repository.model_file(name), options(), CPU).run(None, ROWS)[0]
        np.testing.assert_array_equal(session.run(None, ROWS)[0], expected)
    assert list(pooled(tmp_path / "cache").values()) == [3, 3]


def test_what_no_entry_uses_any_more_goes_and_what_one_uses_stays(repository: Repository, tmp_path: Path) -> None:
    one, _ = repository.segments
    cache = make_cache(tmp_path / "cache", limit=4 * MATRIX + 50_000)  # both matrices, packed and not, once: not for two
    session = cache.open(repository.model_file(one), options)
    assert session is not None
    assert list(pooled(tmp_path / "cache").values()) == [2, 2]
    other = biased(7, 7, (8, 9))
    tasks = {"three": other, "four": biased(8, 8, (8, 9))}
    more = export_repository(sources(tasks), ExportOptions(tmp_path / "more")).repository
    cache.open(more.model_file(next(iter(more.segments))), options)
    assert list(pooled(tmp_path / "cache").values()) == [2, 2]
    assert session.run(None, ROWS)[0].shape == (3, 3)


@pytest.mark.parametrize("width", [128, 512])  # of the second, segments are large enough for the cache
def test_a_server_that_knows_both_tasks_answers_when_one_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """Before any session is open: then the files are needed once more, from where they were or from what is kept of them."""
    monkeypatch.setattr("tests.exporter.biased.WIDTH", width)
    repo, rows = tmp_path / "repo", np.random.default_rng(0).standard_normal((3, width)).astype(np.float32)
    repository = export_repository(sources({"one": biased(1, 1), "two": biased(2, 2)}), ExportOptions(repo)).repository
    files = {name: repository.model_file(name) for name in repository.segments}
    expected = {name: open_session(file, options(), CPU).run(None, {"input": rows})[0] for name, file in files.items()}
    store = session_store(SessionStoreOptions(threads=1, cache_folder=tmp_path / "cache"))
    store.declare(SegmentFile(segment, files[name]) for name, segment in repository.segments.items())
    remove_tasks(repo, ["one"], gc=True)
    for name, answer in expected.items():
        np.testing.assert_array_equal(store.run(name, [rows])[0], answer)
    assert (tmp_path / "cache" / "weights").exists() == (width == 512)
    store.close_all()
    left = read_repository(repo)
    store.declare(SegmentFile(segment, left.model_file(name)) for name, segment in left.segments.items())
    for name in left.segments:
        np.testing.assert_array_equal(store.run(name, [rows])[0], expected[name])


MEMORY = """
import json, sys
from pathlib import Path
import numpy as np
from benchmarks.harness.process_memory import memory_of_process
from serving.engines.onnxruntime.segment_cache import SegmentCache
from serving.engines.onnxruntime.session import session_options
import os
files, cache = json.loads(sys.argv[1]), SegmentCache(Path(sys.argv[2]), ("CPUExecutionProvider",), 10**9, min_bytes=0)
rows = np.zeros((1, 1024), np.float32)
sessions, found = [], []
for file in files:
    sessions.append(cache.open(Path(file), lambda: session_options(1)))
    sessions[-1].run(None, {"input": rows})
    memory = memory_of_process(os.getpid())
    found.append([memory.anonymous, memory.proportional])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_memory_of_another_task_is_what_it_has_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.exporter.biased.WIDTH", 1024)
    tasks = {f"task{index}": biased(index, index, (1, 2, 3, 4)) for index in range(4)}
    repository = export_repository(sources(tasks), ExportOptions(tmp_path / "repo")).repository
    files = json.dumps([str(repository.model_file(name)) for name in repository.segments])
    for _ in range(2):  # the second time from entries that are there
        result = subprocess.run([sys.executable, "-c", MEMORY, files, str(tmp_path / "cache")], capture_output=True, check=True)
        first, *_, last = json.loads(result.stdout)
    weights = 4 * 1024 * 1024 * 4
    assert last[0] - first[0] < 0.2 * weights  # three more sessions, of 16.8 MB each alone
    assert last[1] - first[1] < 0.4 * weights


@pytest.mark.parametrize("cached", [False, True])
def test_a_data_file_that_is_damaged_is_named_and_not_the_model(repository: Repository, tmp_path: Path, cached: bool) -> None:
    options = SessionStoreOptions(threads=1, cache_folder=tmp_path / "cache" if cached else None)
    name, segment = next(iter(repository.segments.items()))
    (data,) = repository.model_file(name).parent.glob("*.bin")
    content = data.read_bytes()

    def refusal() -> str:
        with pytest.raises(RepositoryError) as refused:
            session_store(options).open([SegmentFile(segment, repository.model_file(name))])
        return str(refused.value)

    data.write_bytes(content[:999])
    assert f"its {data.name} is cut short, to 999 bytes of {2 * MATRIX:,} at least; export" in refusal()
    data.unlink()
    assert f"its {data.name} is not there; export" in refusal()
    data.write_bytes(content)
    repository.model_file(name).write_bytes(b"no model")
    assert f"its model.onnx or its {data.name} is damaged or does not fit" in refusal()
