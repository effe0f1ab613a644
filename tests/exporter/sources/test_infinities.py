"""Infinities among other numbers in a constant: a mask, if the network answers all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from contract.repository.rows import relative_error, spread_of
from exporter.errors import ExportError, NonFiniteWeights
from exporter.export import ExportOptions, export_repository
from exporter.open_models import open_sources
from exporter.sources.onnx_file import load_onnx
from exporter.sources.sandbox import try_in_sandbox
from tests.exporter.sources.strangers import FEATURES, save, stranger, tensor

pytestmark = pytest.mark.usefixtures("forked_preflight")
MASK = np.array([[0, -1, -2, -3] + [-np.inf] * 4], np.float32)
ADD, SOFTMAX = (helper.make_node("Add", ["features", "m"], ["a"]), helper.make_node("Softmax", ["a"], ["s"], axis=1))


def masked(folder: Path, mask: np.ndarray, constant: bool = False) -> Path:
    value = numpy_helper.from_array(mask, "m")
    maker = [helper.make_node("Constant", [], ["m"], value=value)] if constant else []
    return save(folder, stranger([*maker, ADD, SOFTMAX], "s", [] if constant else [value]))


@pytest.mark.parametrize("constant", [False, True])
def test_a_mask_that_leaves_answers_finite_is_taken_and_said(tmp_path: Path, constant: bool) -> None:
    path = masked(tmp_path, MASK, constant)
    sources = open_sources(None, {"t": path})
    assert sources.remarks == (f"{path} has infinite numbers in the constant 'm', which is taken for a mask.",)
    assert export_repository(sources, ExportOptions(tmp_path / "repo")).parity_errors["t"] < 1e-5


def test_answers_that_are_infinite_in_places_by_design(tmp_path: Path) -> None:
    proto = stranger([ADD], weights=[numpy_helper.from_array(MASK, "m")], outputs=[tensor("a", ["N", FEATURES])])
    path = save(tmp_path, proto)
    sources = open_sources(None, {"t": path})
    assert sources.remarks[1] == f"{path} answers with infinite numbers in places in 'a', as that mask has it."
    report = export_repository(sources, ExportOptions(tmp_path / "repo"))
    assert report.parity_errors["t"] < 1e-5
    assert report.repository.tasks["t"].scores == "logits"


def test_nan_is_refused_beside_infinities_too(tmp_path: Path) -> None:
    mask = MASK.copy()
    mask[0, 1] = np.nan
    with pytest.raises(NonFiniteWeights, match="'m' holds NaN or infinite values"):
        load_onnx(masked(tmp_path, mask))


def test_infinities_that_leave_no_answer_are_refused(tmp_path: Path) -> None:
    """A weight behind a Transpose is no mask, and none of the products' own inputs."""
    weight = np.full((FEATURES, FEATURES), 0.5, np.float32)
    weight[0] = np.inf
    nodes = [helper.make_node("Transpose", ["m"], ["w"]), helper.make_node("MatMul", ["features", "w"], ["s"])]
    nodes.append(helper.make_node("Softmax", ["s"], ["o"], axis=1))
    path = save(tmp_path, stranger(nodes, "o", [numpy_helper.from_array(weight, "m")]))
    with pytest.raises(ExportError, match="'m' holds NaN or infinite values; a network with such weights answers nothing"):
        try_in_sandbox([path])


def test_errors_of_answers_with_infinities() -> None:
    expected = np.array([[0.0, -np.inf], [2.0, -np.inf]])
    assert spread_of(expected) == 1
    assert relative_error(expected, expected) == 0
    assert relative_error(expected + 1e-3, expected) == pytest.approx(1e-3)
    assert relative_error(np.array([[0.0, -np.inf], [2.0, 5.0]]), expected) == np.inf
    assert relative_error(-expected, expected) == np.inf
    assert np.isnan(relative_error(np.full((2, 2), np.inf), np.full((2, 2), np.inf)))


def test_a_mask_below_a_kilobyte_and_above_are_read_alike(tmp_path: Path) -> None:
    long = np.where(np.arange(2048) % 2, -np.inf, np.arange(2048)).astype(np.float32)
    proto = stranger()
    proto.graph.initializer.append(numpy_helper.from_array(long, "long"))
    onnx.save(proto, tmp_path / "net.onnx")
    assert load_onnx(tmp_path / "net.onnx").graph.initializers["long"].const_value.nbytes == long.nbytes
