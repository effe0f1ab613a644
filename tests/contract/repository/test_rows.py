"""Rows alone and together: networks whose rows affect each other, each by another way, and networks whose rows do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.repository import TensorSpec
from contract.repository.rows import QUICK, THOROUGH, Batches, RowsVerdict, allowed_error, judge_rows, relative_error
from contract.repository.sample import sample_rows

Array = NDArray[np.generic]
Network = Callable[[Any], Any]
WEIGHTS = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)


def verdict(network: Network, dtype: str = "FP32", batches: Batches = THOROUGH) -> RowsVerdict:
    inputs = [sample_rows(TensorSpec("x", dtype, (6,)), 4)]
    return judge_rows(lambda given: [np.asarray(network(given[0]))], inputs, batches=batches)


def softmax(x: Any, axis: int) -> Array:
    exponents = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=axis, keepdims=True))


def quantised(x: Any) -> Any:
    step = max(float(np.abs(x).max()), 1e-9) / 127
    return np.round(x / step) * step


INDEPENDENT: dict[str, Network] = {
    "a product": lambda x: x @ WEIGHTS,
    "softmax of a row": lambda x: softmax(x @ WEIGHTS, 1),
    "quantised by fixed steps": lambda x: np.round(x * 4) / 4 @ WEIGHTS,
    "the largest of a row": lambda x: np.argmax(x @ WEIGHTS, axis=1)[:, None],
    "hardly any difference between rows": lambda x: 1000 + 1e-3 * (x @ WEIGHTS).astype(np.float64),
    "overflow at the largest scale": lambda x: np.where(np.abs(x) > 50, np.inf, x),
}
COUPLED: dict[str, Network] = {
    "softmax over the batch": lambda x: softmax(x @ WEIGHTS, 0),
    "minus the mean of the batch": lambda x: x @ WEIGHTS - (x @ WEIGHTS).mean(0),
    "quantised by the batch": lambda x: quantised(x) @ WEIGHTS,
    "divided by the number of rows": lambda x: x @ WEIGHTS / len(x),
    "backwards": lambda x: (x @ WEIGHTS)[::-1],
    "sorted": lambda x: np.sort(x @ WEIGHTS, axis=0),
    "similarity of rows": lambda x: x @ x.T,
    "a hundredth of the first row": lambda x: x @ WEIGHTS + x[:1] @ WEIGHTS / 100,
    "one number": lambda x: x.sum(),
    "a row too many": lambda x: np.concatenate([x, x[:1]]),
}


@pytest.mark.parametrize("batches", [QUICK, THOROUGH])
@pytest.mark.parametrize("name", INDEPENDENT)
def test_rows_that_are_computed_by_themselves_pass(name: str, batches: Batches) -> None:
    assert verdict(INDEPENDENT[name], batches=batches).independent()


@pytest.mark.parametrize("batches", [QUICK, THOROUGH])
@pytest.mark.parametrize("name", COUPLED)
def test_rows_that_affect_each_other_do_not_pass_and_are_not_called_random(name: str, batches: Batches) -> None:
    found = verdict(COUPLED[name], batches=batches)
    assert not found.independent()
    assert not found.random()


def test_bytes_are_scaled_within_their_range() -> None:
    assert verdict(lambda x: x.astype(np.float32) @ WEIGHTS, "UINT8").independent()
    assert not verdict(lambda x: quantised(x.astype(np.float32)) @ WEIGHTS, "UINT8").independent()


def test_places_in_a_table_are_not_scaled() -> None:
    assert verdict(lambda x: WEIGHTS[:2][x].reshape(len(x), -1), "INT64").independent()


def test_noise_is_told_from_rows_that_affect_each_other() -> None:
    random = np.random.default_rng(0)
    found = verdict(lambda x: x @ WEIGHTS + random.standard_normal((len(x), 5)))
    assert found.random()
    assert not found.independent()


def test_another_rounding_by_size_is_told_from_other_rows_beside() -> None:
    found = verdict(lambda x: x @ WEIGHTS + 0.01 * len(x))
    assert found.alone > 1e-4
    assert found.beside == 0
    assert not found.independent()
    assert found.independent(sizes=0.05)


def test_answers_that_are_no_numbers_prove_nothing() -> None:
    assert not verdict(lambda x: x * np.nan).independent()


def test_the_limit_is_wider_for_half_precision() -> None:
    assert allowed_error([TensorSpec("x", "FP32", (1,))]) == 1e-4
    assert allowed_error([TensorSpec("x", "FP32", (1,)), TensorSpec("y", "FP16", (1,))]) == 0.05


def test_what_is_no_number_must_be_none_in_the_same_places() -> None:
    usual, expected = np.array([[0.0], [2.0]]), np.array([[np.nan], [5.0]])
    assert relative_error(expected, expected, usual) == 0
    assert relative_error(expected[:1], expected[:1], usual) == 0
    assert relative_error(expected + 1e-3, expected, usual) == pytest.approx(1e-3)
    for other in (expected[::-1], usual, np.array([[np.inf], [5.0]])):
        assert relative_error(other, expected, usual) == np.inf
    assert relative_error(expected, expected) == np.inf
    assert np.isnan(relative_error(expected[:1], expected[:1]))
