"""Weights wait on disk, equal ones once, and come back whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import exporter.build.weight_store
from exporter.build.weight_store import WeightStore, save_with_weights
from exporter.graph.network import Network
from exporter.graph.passes.canonical import canonicalise
from exporter.sources.runtime import open_session
from tests.exporter.wired import Wired


def wide(seeds: dict[str, int], head: int) -> ir.Model:
    """Weights large enough to be stored."""
    net = Wired({"image": 40})
    source = "image"
    for name, seed in seeds.items():
        source = net.layer(source, name, seed, 40)
    net.layer(source, "logits", head, 3)
    return canonicalise(net.model("logits"))


ROWS = {"image": np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)}


def test_equal_weights_are_kept_once_and_digests_do_not_change(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    models = [wide({"a": 1, "b": 2}, 9), wide({"a": 1, "b": 3}, 9), wide({"b": 2, "a": 1}, 8)]
    before = [Network("net", wide({"a": 1, "b": 2}, 9)).chain().taps]
    for model in models:
        store.take_over(model)
    assert sorted(file.stat().st_size for file in tmp_path.iterdir()) == [40 * 40 * 4] * 3
    assert Network("net", models[0]).chain().taps == before[0]


def test_a_stored_model_runs_from_its_file(tmp_path: Path) -> None:
    expected = open_session(wide({"a": 1}, 2)).run(None, ROWS)[0]
    model = wide({"a": 1}, 2)
    store = WeightStore(tmp_path)
    store.take_over(model)
    np.testing.assert_array_equal(open_session(store.save(model, "whole")).run(None, ROWS)[0], expected)


def test_a_stored_model_is_written_whole_twice(tmp_path: Path) -> None:
    expected = open_session(wide({"a": 1}, 2)).run(None, ROWS)[0]
    model = wide({"a": 1}, 2)
    (tmp_path / "store").mkdir()
    WeightStore(tmp_path / "store").take_over(model)
    for name in ("one.onnx", "two.onnx"):
        save_with_weights(model.clone(), tmp_path / name)
        np.testing.assert_array_equal(open_session(tmp_path / name).run(None, ROWS)[0], expected)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_what_one_protobuf_cannot_hold_goes_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter.build.weight_store, "LARGEST_PROTOBUF", 1000)
    expected = open_session(wide({"a": 1}, 2)).run(None, ROWS)[0]
    save_with_weights(wide({"a": 1}, 2), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size >= 40 * 40 * 4
    assert onnx.load(tmp_path / "model.onnx", load_external_data=False).ByteSize() < 2000
    np.testing.assert_array_equal(open_session(tmp_path / "model.onnx").run(None, ROWS)[0], expected)
