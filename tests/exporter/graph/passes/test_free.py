"""Networks of one row, as most exporters write them: two rows at once get the answers that the file gives them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from exporter.errors import ExportError, NotDeterministic, UnsupportedModel
from exporter.export import ExportOptions, export_repository
from exporter.graph.passes.batch import free
from exporter.graph.passes.batch.placing import place_of_batch
from exporter.open_models import open_sources
from exporter.sources.assumed import assumed
from exporter.sources.onnx_file import load_onnx
from exporter.sources.sandbox import canonical_form, try_in_sandbox
from tests.exporter.sources.strangers import FEATURES, answers, given, images, save, stranger, tensor

pytestmark = pytest.mark.usefixtures("forked_preflight")
_RNG = np.random.default_rng(3)


def node(operator: str, inputs: Sequence[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], name=f"{operator}_of_{output}", **attributes)


def ints(name: str, *numbers: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(numbers, np.int64), name)


def floats(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(_RNG.standard_normal(shape).astype(np.float32), name)


TOKENS = [
    node("Reshape", ["conv", "patches"], "p"),  # (1, 8, 6, 6) -> (1, 8, 36)
    node("Transpose", ["p"], "t", perm=[0, 2, 1]),
    node("Concat", ["token", "t"], "sequence", axis=1),  # (1, 37, 8)
    node("Add", ["sequence", "positions"], "embedded"),
]
HEADS = [
    node("Transpose", ["embedded"], "first", perm=[1, 0, 2]),  # (37, 1, 8): torch's own attention has the batch second
    node("Reshape", ["first", "together"], "rows"),  # (37, 8)
    node("Gemm", ["rows", "w"], "projected"),
    node("Reshape", ["projected", "apart"], "again"),  # (37, 1, 8)
    node("Reshape", ["again", "split"], "heads"),  # (37, 2, 4)
    node("Transpose", ["heads"], "q", perm=[1, 0, 2]),
    node("Transpose", ["heads"], "k", perm=[1, 2, 0]),
    node("MatMul", ["q", "k"], "scores"),
    node("Softmax", ["scores"], "weights", axis=-1),
    node("MatMul", ["weights", "q"], "attended"),
    node("Transpose", ["attended"], "back", perm=[1, 0, 2]),
    node("Reshape", ["back", "together"], "flat_rows"),
    node("Reshape", ["flat_rows", "apart"], "out"),
    node("Gather", ["out", "zero"], "o", axis=0),
]
WINDOWS = [
    node("Reshape", ["conv", "windows"], "w6"),  # (1, 8, 2, 3, 2, 3)
    node("Transpose", ["w6"], "w_t", perm=[0, 2, 4, 3, 5, 1]),
    node("Reshape", ["w_t", "cells"], "c"),  # (4, 9, 8): four windows a row
    node("Softmax", ["c"], "soft", axis=1),
    node("Reshape", ["soft", "with_mask"], "m"),  # (1, 4, 9, 8)
    node("Add", ["m", "mask"], "masked"),
    node("ReduceMean", ["masked"], "o", axes=[1, 2], keepdims=0),
]
LSTM = [
    node("Reshape", ["conv", "patches"], "p"),
    node("Transpose", ["p"], "steps", perm=[2, 0, 1]),  # (36, 1, 8)
    helper.make_node("LSTM", ["steps", "W", "R", "", "", "h", "h"], ["", "last"], hidden_size=FEATURES),
    node("Squeeze", ["last", "zero_axis"], "o"),
]
RESIZE = [
    helper.make_node("Resize", ["conv", "", "", "sizes"], ["large"], mode="nearest"),
    node("ReduceMax", ["large"], "o", axes=[2, 3], keepdims=0),
]
WEIGHTS = [
    *(ints("patches", 1, FEATURES, 36), floats("token", 1, 1, FEATURES), floats("positions", 1, 37, FEATURES)),
    *(ints("together", 37, FEATURES), ints("apart", 37, 1, FEATURES), ints("split", 37, 2, 4), floats("w", FEATURES, FEATURES)),
    *(numpy_helper.from_array(np.array(0), "zero"), ints("zero_axis", 0), ints("windows", 1, FEATURES, 2, 3, 2, 3)),
    *(ints("cells", 4, 9, FEATURES), ints("with_mask", 1, 4, 9, FEATURES), floats("mask", 1, 4, 9, 1)),
    *(floats("W", 1, 4 * FEATURES, FEATURES), floats("R", 1, 4 * FEATURES, FEATURES), floats("h", 1, 1, FEATURES)),
    *(ints("sizes", 1, FEATURES, 9, 9), ints("row", 1, FEATURES), ints("any", 1, -1)),
]


def fixed(folder: Path, nodes: Sequence[onnx.NodeProto], output: str = "o", batch: int = 1) -> Path:
    used = {name for item in nodes for name in item.input}
    weights = [weight for weight in WEIGHTS if weight.name in used]
    return save(folder, stranger(nodes, output, weights, opset=17, batch=batch))


@pytest.mark.parametrize(
    ("nodes", "changed"),
    [
        ([node("Identity", ["features"], "o")], ""),
        ([node("Reshape", ["pool", "row"], "o")], " (Reshape)"),
        ([node("Reshape", ["pool", "any"], "o")], " (Reshape)"),
        ([node("Squeeze", ["pool"], "o")], " (Squeeze)"),
        (TOKENS + HEADS, " (Reshape, Concat)"),
        (WINDOWS, " (Reshape)"),
        (LSTM, " (Reshape, LSTM)"),
        (RESIZE, " (Resize)"),
    ],
)
def test_a_batch_of_one_is_made_free(tmp_path: Path, nodes: list[onnx.NodeProto], changed: str) -> None:
    path, rows = fixed(tmp_path, nodes), images(3)
    alone = np.stack([given(path, rows[row : row + 1])[0].reshape(-1) for row in range(3)])
    np.testing.assert_allclose(answers(path, rows)[0], alone, rtol=1e-4, atol=1e-5)
    (sentence,) = open_sources(None, {"t": path}).remarks
    assert sentence == f"{path} has a batch size of 1, which was made free{changed}."


@pytest.mark.parametrize(
    ("nodes", "culprit"),
    [
        (
            [node("Gather", ["features", "zero"], "first", axis=0), node("Reshape", ["first", "row"], "o")],
            "Gather .*'Gather_of_first'",
        ),
        (
            [node("ReduceMean", ["features"], "mean", axes=[0]), node("Sub", ["features", "mean"], "o")],
            "ReduceMean .*'ReduceMean_of_mean'",
        ),
    ],
)
def test_what_depends_on_the_one_row_is_named(tmp_path: Path, nodes: list[onnx.NodeProto], culprit: str) -> None:
    words = rf"the batch size is fixed to 1, and {culprit}\) may depend on it; export it with a dynamic first dimension\."
    with pytest.raises(UnsupportedModel, match=words):
        canonical_form("net", load_onnx(fixed(tmp_path, nodes)))


def test_a_larger_fixed_batch_is_refused_as_before(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the batch size is fixed to 2; export it with a dynamic first dimension"):
        try_in_sandbox([fixed(tmp_path, [node("Identity", ["features"], "o")], batch=2)])


def test_rows_that_would_meet_are_found_by_a_run(tmp_path: Path) -> None:
    nodes = [node("Softmax", ["features"], "soft", axis=0), node("Add", ["soft", "features"], "o")]
    with pytest.raises(ExportError, match="fixed to 1, and two rows at once get other answers than alone"):
        try_in_sandbox([fixed(tmp_path, nodes)])


def test_a_network_that_is_quantised_as_it_runs_is_compared_row_by_row(tmp_path: Path) -> None:
    """By the largest number of the batch: together rows get other answers, and an export says that they run by themselves."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["features"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["o"]),
    ]
    path = fixed(tmp_path, nodes)
    assert open_sources(None, {"t": path}).remarks == (f"{path} has a batch size of 1, which was made free.",)


def test_noise_is_not_compared(tmp_path: Path) -> None:
    nodes = [node("RandomNormalLike", ["features"], "noise"), node("Add", ["features", "noise"], "o")]
    path = fixed(tmp_path, nodes)
    with pytest.raises(NotDeterministic, match="RandomNormalLike"):
        export_repository(open_sources(None, {"t": path}), ExportOptions(tmp_path / "repo"))


def test_a_wrong_rewrite_is_found_by_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(free._REWRITES, "Sub", lambda walk, item: item.replace_input_with(1, item.inputs[0]))
    monkeypatch.setattr("exporter.sources.sandbox._run", _in_this_process)
    nodes = [node("Relu", ["features"], "r"), node("Exp", ["features"], "e"), node("Sub", ["r", "e"], "o")]
    with pytest.raises(ExportError, match="two rows at once get other answers than alone"):
        try_in_sandbox([fixed(tmp_path, nodes)])


def _in_this_process(files: Sequence[Path]):  # type: ignore[no-untyped-def]
    import json
    import subprocess

    from exporter.sources.sandbox import _try_out

    return subprocess.CompletedProcess((), 0, "".join(json.dumps(_try_out(file)) + "\n" for file in files), "")


def test_every_output_gets_its_batch(tmp_path: Path) -> None:
    proto = stranger(outputs=[tensor("features", [1, FEATURES]), tensor("relu", [1, FEATURES, 6, 6])], batch=1)
    model = canonical_form("net", load_onnx(save(tmp_path, proto)))
    assert [value.shape for value in model.graph.outputs] == [ir.Shape(["batch", FEATURES]), ir.Shape(["batch", FEATURES, 6, 6])]
    assert len(assumed(model)) == 1


def test_an_input_that_nothing_uses_hinders_nothing(tmp_path: Path) -> None:
    proto = stranger(batch=1)
    proto.graph.input.append(tensor("unused", [1, 3], onnx.TensorProto.INT64))
    (sentence,) = try_in_sandbox([save(tmp_path, proto)])
    assert "which was made free" in sentence


@pytest.mark.parametrize(
    ("source", "axis", "ahead", "result", "place"),
    [
        ((1, 8, 1, 1), 0, 1, (1, 8), 0),
        ((1, 197, 768), 0, 1, (197, 768), 0),
        ((17, 1, 8), 1, 17, (17, 8), 0),  # rows for a product
        ((17, 24), 0, 17, (17, 1, 24), 1),  # and back
        ((17, 1, 8), 1, 17, (17, 2, 4), 1),  # heads
        ((64, 49, 96), 0, 1, (1, 8, 8, 7, 7, 96), 0),  # windows
        ((3, 64, 197), 0, 1, (1, 3, 64, 197), 0),
        ((5, 1, 1, 6), 1, 5, (5, 1, 6), 1),
        ((4, 1, 9), 1, 4, (6, 6), None),  # torn apart
    ],
)
def test_where_the_batch_goes(source: tuple[int, ...], axis: int, ahead: int, result: tuple[int, ...], place: int | None) -> None:
    assert place_of_batch(axis, source, result, ahead) == place
