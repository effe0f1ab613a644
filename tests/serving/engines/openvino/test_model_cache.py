"""Segments in OpenVINO's own format: made once, read after that, and made again when anything about them is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.engines.openvino.model_cache import ModelCache
from serving.engines.openvino.package import core

pytestmark = pytest.mark.slow
WEIGHT = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
ROWS = np.random.default_rng(1).normal(size=(2, 16)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "own/model.onnx", WEIGHT)


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache", min_bytes=0, record_hashes=False)


def write(file: Path, weight: np.ndarray) -> Path:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["output"])],
        "one",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", 16])],
        [numpy_helper.from_array(weight, "weight")],
    )
    file.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]), file)
    return file


def answer(read: object) -> np.ndarray:
    assert read is not None
    return np.array(core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([ROWS])[0])


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture
def made(tmp_path: Path, cache: ModelCache, model: Path) -> Path:
    """The entry of `model`."""
    assert cache.read(model) is not None
    (entry,) = entries(tmp_path / "cache")
    return entry


def test_the_second_time_the_entry_is_read_and_not_the_model(cache: ModelCache, model: Path, made: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in made.iterdir() if file.name != "manifest.json"}
    assert set(before) == {"model.xml", "model.bin"}
    content = np.array(answer(cache.read(model)))
    np.testing.assert_allclose(content, ROWS @ WEIGHT, atol=1e-5)
    assert {name: (made / name).stat().st_mtime_ns for name in before} == before
    another = ModelCache(made.parent, min_bytes=0, record_hashes=False)  # as of another process
    np.testing.assert_allclose(answer(another.read(model)), ROWS @ WEIGHT, atol=1e-5)
    assert {name: (made / name).stat().st_mtime_ns for name in before} == before


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "manifest.json"])
@pytest.mark.parametrize("damage", [b"", b"something else", None])
def test_whatever_is_damaged_is_made_again(cache: ModelCache, model: Path, made: Path, name: str, damage: bytes | None) -> None:
    file = made / name
    content = file.read_bytes()
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    np.testing.assert_allclose(answer(cache.read(model)), ROWS @ WEIGHT, atol=1e-5)
    if name != "manifest.json":
        assert file.read_bytes() == content


def test_one_flipped_bit_of_a_weight_is_found(cache: ModelCache, model: Path, made: Path) -> None:
    file = made / "model.bin"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)
    os.utime(file)
    np.testing.assert_array_equal(answer(cache.read(model)), answer(core().read_model(model)))


def test_another_model_of_the_same_name_has_another_entry(cache: ModelCache, model: Path, made: Path) -> None:
    write(model, 2 * WEIGHT)
    np.testing.assert_allclose(answer(cache.read(model)), 2 * (ROWS @ WEIGHT), atol=1e-4)
    assert len(entries(made.parent)) == 2


def test_the_least_recently_used_entries_go_when_there_is_no_room(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    size = 0
    for seed in range(4):
        file = write(tmp_path / str(seed) / "model.onnx", np.full((16, 16), float(seed), np.float32))
        cache = ModelCache(folder, limit_bytes=2 * size + size // 2 if size else 1 << 30, min_bytes=0)
        assert cache.read(file) is not None
        size = sum(path.stat().st_size for path in entries(folder)[0].iterdir())
    assert len(entries(folder)) == 2


def test_with_the_entries_go_the_weights_that_only_they_had(tmp_path: Path, cache: ModelCache, model: Path) -> None:
    """As of ONNX Runtime's entries in the same folder."""
    folder = tmp_path / "cache"
    for name in ("used", "left"):
        (folder / "weights").mkdir(parents=True, exist_ok=True)
        (folder / "weights" / f"{name}.bin").write_bytes(b"weights")
    (folder / "entry").mkdir()
    os.link(folder / "weights/used.bin", folder / "entry/used.bin")
    assert cache.read(model) is not None
    assert [file.name for file in (folder / "weights").iterdir()] == ["used.bin"]


def test_small_models_and_those_with_weights_beside_them_have_none(tmp_path: Path, model: Path) -> None:
    assert ModelCache(tmp_path / "cache").read(model) is None
    (tmp_path / "beside").mkdir()
    proto = onnx.load(model)
    file = tmp_path / "beside/model.onnx"
    onnx.save(proto, file, save_as_external_data=True, location="weights-0123456789abcdef.bin", size_threshold=0)
    assert ModelCache(tmp_path / "cache", min_bytes=0).read(file) is None


def test_what_openvino_cannot_read_leaves_nothing_behind(tmp_path: Path, cache: ModelCache) -> None:
    (tmp_path / "odd").mkdir()
    file = tmp_path / "odd/model.onnx"
    file.write_bytes(b"no model")
    assert cache.read(file) is None
    assert entries(tmp_path / "cache") == []
