"""The segment cache: known segments open from their optimised form, and nothing else does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from contract.repository import Repository, Segment, TensorSpec
from serving.engines.onnxruntime.runtime import session_store
from serving.engines.onnxruntime.segment_cache import SegmentCache, default_cache_folder, processor
from serving.engines.onnxruntime.session import open_session, session_options
from serving.engines.sessions.file_digests import FileDigests
from serving.engines.sessions.runtime import SegmentFile, SessionStoreOptions

CPU = ("CPUExecutionProvider",)


def options() -> ort.SessionOptions:
    return session_options(1)


def wide_model(file: Path, seed: int = 0, width: int = 64) -> Path:
    """A network of a convolution (whose layout depends on the processor) and a matrix, with weights beyond the smallest."""
    random = np.random.default_rng(seed)
    weights = {
        "kernel": random.normal(size=(32, 3, 3, 3)).astype(np.float32),
        "matrix": random.normal(size=(32 * 16, width)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Flatten", ["relu"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", 3, 4, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", width])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]), file)
    return file


def answer(session: ort.InferenceSession | None, rows: int = 3) -> np.ndarray:
    assert session is not None
    return session.run(None, {"input": np.random.default_rng(0).normal(size=(rows, 3, 4, 4)).astype(np.float32)})[0]


def make_cache(folder: Path, limit_bytes: int = 10**9) -> SegmentCache:
    return SegmentCache(folder, CPU, limit_bytes, min_bytes=0)


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(("new-", "old-")))


def identity(folder: Path) -> set[tuple[int, int]]:
    """Which files the entries hold: others, once an entry is made again. (Freed inode numbers come back, and reading marks manifests.)"""
    files = [file for entry in entries(folder) for file in entry.iterdir() if file.name != "manifest.json"]
    return {(file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return wide_model(tmp_path / "repo/wide/1/model.onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_cached_session_answers_as_the_model_itself_to_the_bit(model: Path, folder: Path) -> None:
    expected = answer(open_session(model, options(), CPU))
    made = make_cache(folder).open(model, options)
    np.testing.assert_array_equal(answer(made), expected)
    before = identity(folder)
    again = make_cache(folder).open(model, options)
    np.testing.assert_array_equal(answer(again), expected)
    assert identity(folder) == before  # it was not made again
    (entry,) = entries(folder)
    assert {file.name for file in entry.iterdir()} == {"model.onnx", "weights.bin", "manifest.json"}
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]  # nothing was written into the repository


def test_weights_are_mapped_from_the_entry(model: Path, folder: Path) -> None:
    session = make_cache(folder).open(model, options)
    (entry,) = entries(folder)
    assert str(entry / "weights.bin") in Path("/proc/self/maps").read_text()
    shutil.rmtree(folder)
    assert answer(session).shape == (3, 64)


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "gone", "foreign"])
def test_a_damaged_entry_is_made_again(model: Path, folder: Path, tmp_path: Path, name: str, damage: str) -> None:
    expected = answer(make_cache(folder).open(model, options))
    (entry,) = entries(folder)
    file = entry / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    if damage == "flipped":
        file.write_bytes(content)
    elif damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "foreign":
        other = make_cache(tmp_path / "other")
        other.open(wide_model(tmp_path / "repo/other/1/model.onnx", width=32), options)
        shutil.copy(entries(tmp_path / "other")[0] / name, file)
    before = identity(folder)
    np.testing.assert_array_equal(answer(make_cache(folder).open(model, options)), expected)
    assert entries(folder) == [entry]
    assert not identity(folder) & before
    before = identity(folder)
    make_cache(folder).open(model, options)
    assert identity(folder) == before  # mended for good


def test_a_whole_foreign_entry_is_not_believed(model: Path, folder: Path, tmp_path: Path) -> None:
    expected = answer(make_cache(folder).open(model, options))
    make_cache(tmp_path / "other").open(wide_model(tmp_path / "repo/other/1/model.onnx", seed=1), options)
    (entry,) = entries(folder)
    shutil.rmtree(entry)
    shutil.copytree(entries(tmp_path / "other")[0], entry)
    np.testing.assert_array_equal(answer(make_cache(folder).open(model, options)), expected)


def test_external_data_is_read_from_the_entry_alone(model: Path, folder: Path, tmp_path: Path) -> None:
    """Even an entry whose checksums are right: its weights may not lie elsewhere."""
    expected = answer(make_cache(folder).open(model, options))
    (entry,) = entries(folder)
    shutil.move(entry / "weights.bin", tmp_path / "weights.bin")
    graph = onnx.load(entry / "model.onnx", load_external_data=False)
    for tensor in graph.graph.initializer:
        for field in tensor.external_data:
            field.value = "../../weights.bin" if field.key == "location" else field.value
    (entry / "model.onnx").unlink()
    (entry / "model.onnx").write_bytes(graph.SerializeToString())
    manifest = json.loads((entry / "manifest.json").read_text())
    manifest["files"] = {"model.onnx": FileDigests().of(entry / "model.onnx")}
    (entry / "manifest.json").write_text(json.dumps(manifest))
    np.testing.assert_array_equal(answer(make_cache(folder).open(model, options)), expected)
    assert (entry / "weights.bin").exists()  # made again: the forged one was refused


@pytest.mark.parametrize("location", ["../../weights.bin", "../../../weights.bin", "weights.bin"])
def test_a_model_whose_weights_lie_elsewhere_is_not_cached(model: Path, folder: Path, tmp_path: Path, location: str) -> None:
    """Its own file is not all that it is, so that its hash says too little: not from where it lies, nor from where it is copied to."""
    proto = onnx.load(model)
    onnx.save(proto, tmp_path / "saved.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    graph = onnx.load(tmp_path / "saved.onnx", load_external_data=False)
    for tensor in graph.graph.initializer:
        for field in tensor.external_data:
            field.value = location if field.key == "location" else field.value
    model.write_bytes(graph.SerializeToString())
    assert make_cache(folder).open(model, options) is None
    assert list(folder.iterdir()) == []


def test_a_changed_model_is_another_entry(model: Path, folder: Path) -> None:
    cache = make_cache(folder)
    first = answer(cache.open(model, options))
    wide_model(model, seed=1)
    second = answer(cache.open(model, options))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(second, answer(open_session(model, options(), CPU)))
    assert len(entries(folder)) == 2


@pytest.mark.parametrize("fact", ["cpu", "onnxruntime", "build"])
def test_another_machine_or_runtime_is_another_entry(model: Path, folder: Path, fact: str) -> None:
    make_cache(folder).open(model, options)
    elsewhere = make_cache(folder)
    elsewhere._machine[fact] = "another"
    elsewhere.open(model, options)
    assert len(entries(folder)) == 2


def test_the_ones_used_least_recently_go(tmp_path: Path, folder: Path) -> None:
    models = [wide_model(tmp_path / f"repo/{seed}/1/model.onnx", seed) for seed in range(4)]
    cache = make_cache(folder)
    made: list[Path] = []
    for model in models[:3]:
        cache.open(model, options)
        made += set(entries(folder)) - set(made)
    for age, entry in zip((30, 20, 10), made, strict=True):
        then = (entry / "manifest.json").stat().st_mtime - age
        os.utime(entry / "manifest.json", (then, then))
    size = sum(file.stat().st_size for file in made[0].iterdir())
    cache = make_cache(folder, 3 * size + size // 2)
    cache.open(models[0], options)  # used again
    session = cache.open(models[3], options)
    assert set(entries(folder)) & set(made) == {made[0], made[2]}
    assert len(entries(folder)) == 3
    assert answer(session).shape == (3, 64)


def test_what_killed_processes_left_goes_after_an_hour(model: Path, folder: Path) -> None:
    for name, age in (("new-1-ab", 7200), ("old-1-cd", 7200), ("new-2-ef", 60)):
        (folder / name).mkdir(parents=True)
        folder.chmod(0o700)
        then = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (then, then))
    make_cache(folder).open(model, options)
    assert {path.name for path in folder.iterdir()} - {entries(folder)[0].name} == {"new-2-ef"}


@pytest.mark.parametrize(
    "reason", ["too small", "too large", "external data", "no folder", "writable by others", "damaged model"]
)
def test_what_cannot_be_cached_is_left_to_be_opened_plainly(model: Path, folder: Path, reason: str) -> None:
    limit = 1000 if reason == "too large" else 10**9
    if reason == "external data":
        (model.parent / "model.onnx.data").write_bytes(b"weights")
    elif reason == "no folder":
        folder.write_text("a file")
    elif reason == "writable by others":
        folder.mkdir()
        folder.chmod(0o777)
    elif reason == "damaged model":
        model.write_bytes(model.read_bytes()[:1000])
    cache = SegmentCache(folder, CPU) if reason == "too small" else make_cache(folder, limit)
    assert cache.open(model, options) is None
    assert not folder.is_dir() or not list(folder.iterdir())


def test_the_store_opens_from_the_cache(repository: Repository, folder: Path, tmp_path: Path) -> None:
    model = wide_model(tmp_path / "repo/large/1/model.onnx", width=1200)
    large = Segment(
        "large", (TensorSpec("input", "FP32", (3, 4, 4)),), (TensorSpec("output", "FP32", (1200,)),), (0, 0), "0" * 64, 8
    )
    store = session_store(SessionStoreOptions(threads=1, provider="cpu", cache_folder=folder))
    store.open([SegmentFile(large, model), SegmentFile(repository.segments["mid"], repository.model_file("mid"))])
    (entry,) = entries(folder)  # the other is too small
    assert str(entry / "weights.bin") in Path("/proc/self/maps").read_text()
    rows = np.random.default_rng(0).normal(size=(3, 3, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(store.run("large", [rows])[0], answer(open_session(model, options(), CPU)))
    store.close_all()
    assert str(entry / "weights.bin") not in Path("/proc/self/maps").read_text()


@pytest.mark.slow
def test_processes_share_a_cache(model: Path, folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.serving.engines.onnxruntime.test_segment_cache import answer, make_cache, options\n"
        "for _ in range(5): print(answer(make_cache(Path(sys.argv[2])).open(Path(sys.argv[1]), options)).tobytes().hex()[:64])"
    )
    command = [sys.executable, "-c", script, str(model), str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert {line for output in outputs for line in output} == {answer(open_session(model, options(), CPU)).tobytes().hex()[:64]}
    assert len(entries(folder)) == 1
    assert {path.name for path in folder.iterdir()} - {"hashed.jsonl"} == {path.name for path in entries(folder)}


def test_digests_follow_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for digests in (FileDigests(), FileDigests(settled_s=0)):
        seen = []
        for content in (b"one", b"three", b"one"):
            file.write_bytes(content)
            seen.append(digests.of(file))
        assert seen[0] == seen[2] != seen[1]


def test_only_a_settled_file_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"one")
    for settled_s, count in ((60, 0), (0, 1)):
        digests = FileDigests(settled_s)
        digests.of(tmp_path / "file")
        assert len(digests._known) == count


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "espalier/segments"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the XDG specification says to ignore
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_folder() == tmp_path / "home/.cache/espalier/segments"


def test_the_processor_is_described() -> None:
    assert len(processor().split()) > 1
