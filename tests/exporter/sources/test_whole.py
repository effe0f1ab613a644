"""Networks are run as their files are: other orders, unused inputs, weights among the inputs, numbers a row, fixed batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.errors import CannotRun
from exporter.export import ExportOptions, export_repository
from exporter.open_models import open_sources
from exporter.sources.whole import WholeNetwork, WholeSession

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
ROWS = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)
NUMBERS = np.arange(5, dtype=np.float32).reshape(5, 1)
Info = onnx.ValueInfoProto


def info(name: str, shape: Sequence[int | str], dtype: int = TensorProto.FLOAT) -> Info:
    return helper.make_tensor_value_info(name, dtype, shape)


def save(folder: Path, inputs: Sequence[Info], batch: int | str = "batch", opset: int = 18) -> Path:
    """x W + number, and the number doubled; `inputs` are put between these two. batch: of all that the network takes and gives."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Unsqueeze", ["number", "axes"], ["column"]),
        helper.make_node("Add", ["product", "column"], ["y"]),
        helper.make_node("Add", ["number", "number"], ["twice"]),
    ]
    weights = [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.int64([1]), "axes")]
    outputs = [info("twice", [batch]), info("y", [batch, 3])]
    graph = helper.make_graph(nodes, "net", [info("number", [batch]), *inputs, info("x", [batch, 2])], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), folder / "net.onnx")
    return folder / "net.onnx"


UNUSED = [info("mask", ["batch", "length", 4], TensorProto.BOOL), info("text", [2], TensorProto.STRING)]


@pytest.mark.parametrize(
    ("inputs", "batch"),
    [([], "batch"), ([info("w", [2, 3])], "batch"), (UNUSED, "batch"), ([], 1), ([], 2), ([], 5), ([], 8)],
)
@pytest.mark.parametrize("optimised", [True, False])
def test_rows_go_in_and_come_out_as_the_task_has_them(
    tmp_path: Path, inputs: Sequence[Info], batch: int | str, optimised: bool
) -> None:
    whole = WholeNetwork(save(tmp_path, inputs, batch), ("x", "number"), ("y", "twice"))
    session = WholeSession(whole, optimised=optimised)
    for count in (5, 1):
        y, twice = session.run([ROWS[:count], NUMBERS[:count]])
        np.testing.assert_allclose(y, ROWS[:count] @ WEIGHT + NUMBERS[:count], rtol=1e-5)
        np.testing.assert_array_equal(twice, 2 * NUMBERS[:count])


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (("x", "image"), ("y",), "as it was given .it has no input 'image'."),
        (("x", "number"), ("logits",), "as it was given .it has no output 'logits'."),
    ],
)
def test_a_file_without_what_the_task_has_cannot_be_run(
    tmp_path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], words: str
) -> None:
    with pytest.raises(CannotRun, match=words):
        WholeSession(WholeNetwork(save(tmp_path, []), inputs, outputs))


def test_an_unused_input_that_is_no_tensor_is_named(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, [1])
    whole = WholeNetwork(save(tmp_path, [sequence]), ("x", "number"), ("y",))
    with pytest.raises(CannotRun, match=r"its input 'list', which nothing uses, is a seq\(tensor\(float\)\)"):
        WholeSession(whole).run([ROWS, NUMBERS])


@pytest.mark.slow
def test_an_export_compares_such_files_as_they_are(tmp_path: Path) -> None:
    file = save(tmp_path, UNUSED[:1])
    report = export_repository(open_sources(None, {"t": file}), ExportOptions(tmp_path / "repo"))
    assert report.remarks == {}
    assert [spec.name for spec in report.repository.tasks["t"].inputs] == ["number", "x"]
    assert report.parity_errors["t"] < 1e-6


@pytest.mark.slow
def test_an_export_compares_with_a_file_for_one_row_that_leaves_its_axis_out(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node("Squeeze", ["product"], ["y"])]
    graph = helper.make_graph(nodes, "net", [info("x", [1, 2])], [info("y", [3])], [numpy_helper.from_array(WEIGHT, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "net.onnx")
    sources = open_sources(None, {"t": tmp_path / "net.onnx"})
    report = export_repository(sources, ExportOptions(tmp_path / "repo"))
    assert report.remarks == {}
    assert [(spec.name, spec.shape) for spec in report.repository.tasks["t"].outputs] == [("t", (3,))]
    assert report.parity_errors["t"] < 1e-6
