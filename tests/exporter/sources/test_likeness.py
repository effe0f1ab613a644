"""Of files that differ in the values of weights alone one is tried out in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporter.errors import ExportError, RefusedModel
from exporter.sources import sandbox
from exporter.sources.likeness import graph_digest
from tests.exporter.sources.strangers import FEATURES, tensor

HIDDEN = 256  # a weight of 8 kB


def network(folder: Path, name: str, weights: np.ndarray | float = 1.0, bias: float = 0.0) -> Path:
    values = np.broadcast_to(np.float32(weights), (FEATURES, HIDDEN)).copy()
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            [
                onnx.helper.make_node("MatMul", ["features", "w"], ["p"]),
                onnx.helper.make_node("Add", ["p", "b"], ["o"]),
            ],
            "g",
            [tensor("features", ["N", FEATURES])],
            [tensor("o", ["N", HIDDEN])],
            [numpy_helper.from_array(values, "w"), numpy_helper.from_array(np.full((1,), bias, np.float32), "b")],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    file = folder / f"{name}.onnx"
    file.write_bytes(proto.SerializeToString())
    return file


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return what is tried out, which is accepted; a file of that name is refused, of another something is assumed."""
    found: list[Path] = []

    def examine(files: Sequence[Path]) -> Sequence[ExportError | Sequence[str]]:
        found.extend(files)
        answers = {"refused": RefusedModel("refused.onnx: no."), "assumed": ("was guessed at.",)}
        return [answers.get(file.stem, ()) for file in files]

    monkeypatch.setattr(sandbox, "examine", examine)
    return found


def test_one_of_several_that_differ_in_large_weights_is_tried(tmp_path: Path, tried: list[Path]) -> None:
    files = [network(tmp_path, name, weights) for name, weights in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
    assert sandbox.try_in_sandbox(files) == ()
    assert tried == files[:1]


def test_what_differs_in_a_small_constant_is_tried(tmp_path: Path, tried: list[Path]) -> None:
    files = [network(tmp_path, "a"), network(tmp_path, "b", bias=1.0)]
    sandbox.try_in_sandbox(files)
    assert tried == files


def test_all_are_tried_where_there_is_something_to_say(tmp_path: Path, tried: list[Path]) -> None:
    files = [network(tmp_path, "assumed"), network(tmp_path, "b", 2.0)]
    assert sandbox.try_in_sandbox(files) == (f"{files[0]} was guessed at.",)
    assert tried == files


def test_none_and_one(tmp_path: Path, tried: list[Path]) -> None:
    assert sandbox.try_in_sandbox([]) == ()
    assert sandbox.try_in_sandbox([network(tmp_path, "a")]) == ()
    assert len(tried) == 1


def test_one_that_is_refused_refuses_all(tmp_path: Path, tried: list[Path]) -> None:
    files = [network(tmp_path, "a"), network(tmp_path, "refused", bias=3.0), network(tmp_path, "c", 2.0)]
    with pytest.raises(RefusedModel, match="no"):
        sandbox.try_in_sandbox(files)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_tried(tmp_path: Path, value: float) -> None:
    assert graph_digest(network(tmp_path, "a")) is not None
    assert graph_digest(network(tmp_path, "b", value)) is None


def test_what_cannot_be_read_is_tried(tmp_path: Path) -> None:
    cut = network(tmp_path, "a").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(cut[: len(cut) // 2])
    proto = onnx.ModelProto.FromString(cut)
    proto.graph.initializer[0].dims[0] += 1
    (tmp_path / "short.onnx").write_bytes(proto.SerializeToString())
    assert [graph_digest(tmp_path / name) for name in ("cut.onnx", "short.onnx", "missing.onnx")] == [None] * 3
