"""The classification extension, string for string as Triton's TopkClassifications writes it (server/src/classification.cc)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contract.dtypes import NUMPY_DTYPES
from contract.errors import InvalidRequest
from serving.answers.classes import best, classification_strings, softmax
from serving.catalog import Catalog, Output
from serving.requests import RequestedOutput
from serving.validate import CLASS_DTYPES, checked_outputs
from tests.serving.nets import make_repository


def strings(values: Any, labels: tuple[str, ...] = (), k: int = 2) -> list[list[bytes]]:
    found: list[list[bytes]] = classification_strings(np.asarray(values), labels, k).tolist()
    return found


def test_floats_have_six_digits_and_integers_none() -> None:
    assert strings(np.array([[0.1, 12.5]], np.float32)) == [[b"12.500000:1", b"0.100000:0"]]
    assert strings(np.array([[1e-9, -3.0]], np.float64)) == [[b"0.000000:0", b"-3.000000:1"]]
    assert strings(np.array([[3, 250]], np.uint8)) == [[b"250:1", b"3:0"]]
    assert strings(np.array([[-3, -4]], np.int16)) == [[b"-3:0", b"-4:1"]]


def test_an_empty_label_is_none_and_so_is_one_that_is_missing() -> None:
    values = np.array([[3, 2, 1]], np.float32)
    assert strings(values, ("cat", ""), 3) == [[b"3.000000:0:cat", b"2.000000:1", b"1.000000:2"]]


def test_large_integers_are_ranked_exactly() -> None:
    assert strings(np.array([[2**63, 2**63 + 1]], np.uint64)) == [[b"9223372036854775809:1", b"9223372036854775808:0"]]
    assert strings(np.array([[-(2**63), 2**63 - 1]], np.int64)) == [[b"9223372036854775807:1", b"-9223372036854775808:0"]]


arrays = st.sampled_from(CLASS_DTYPES).flatmap(
    lambda name: hnp.arrays(NUMPY_DTYPES[name], st.tuples(st.integers(1, 3), st.integers(1, 6)))
)


@settings(max_examples=50)
@given(arrays, st.integers(1, 7))
def test_the_best_are_the_largest_ties_by_index_and_nan_last(values: np.ndarray, k: int) -> None:
    for row, indices in zip(values.tolist(), best(values, k), strict=True):
        order = sorted(
            range(len(row)), key=lambda index: (row[index] != row[index], -row[index] if row[index] == row[index] else 0, index)
        )
        assert indices.tolist() == order[:k]


@settings(max_examples=50)
@given(arrays, st.lists(st.sampled_from(["", "cat", "dög"]), max_size=7), st.integers(1, 7))
def test_each_string_is_value_index_and_label(values: np.ndarray, labels: list[str], k: int) -> None:
    for row, indices, found in zip(values, best(values, k), strings(values, tuple(labels), k), strict=True):
        for index, string in zip(indices.tolist(), found, strict=True):
            number = f"{row[index]:f}" if values.dtype.kind == "f" else str(row[index])
            label = labels[index] if index < len(labels) else ""
            assert string.decode() == ":".join([number, str(index), *([label] if label else [])])


@pytest.mark.parametrize("dtype", ["BOOL", "FP16", "BYTES"])
def test_types_that_triton_does_not_rank_are_refused_before_anything_runs(dtype: str) -> None:
    model = Catalog(make_repository(Path("nowhere"))).find("late")
    output = model.outputs["late"]
    model = replace(model, outputs={"late": Output(replace(output.spec, dtype=dtype), output.labels)})
    with pytest.raises(
        InvalidRequest, match=f"Output 'late' is {dtype}, which has no classes as on Triton; request it as values"
    ):
        checked_outputs(model, (RequestedOutput("late", 2),))
    assert checked_outputs(model, (RequestedOutput("late"),))


def test_probabilities_of_values_that_are_not_finite_are_nan_without_a_warning() -> None:
    found = softmax(np.array([[np.nan, 1], [np.inf, 1], [-np.inf, 1]], np.float32))
    assert np.isnan(found[:2]).any(axis=1).all()
    assert found[2].tolist() == [0, 1]
