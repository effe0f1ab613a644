"""Folds and draws of images with any number of labels, or values."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tuning.errors import BadData, BadOptions
from tuning.kinds.strata import draw_label_rows, draw_value_rows, label_folds, value_folds

NAMES = ("a", "b", "c")
SEEDS = st.integers(0, 2**31)


@st.composite
def targets(draw: st.DrawFn) -> NDArray[np.float32]:
    """Images of three labels, each of which eight or more images have, and of none, in any order."""
    alone = np.repeat(np.eye(3, dtype=np.float32), draw(st.lists(st.integers(8, 20), min_size=3, max_size=3)), axis=0)
    others = draw(st.lists(st.tuples(*[st.integers(0, 1)] * 3), max_size=30))
    rows = np.concatenate([alone, np.array(others, dtype=np.float32).reshape(-1, 3)])
    return np.random.default_rng(draw(st.integers(0, 9))).permutation(rows)


@given(targets(), st.integers(2, 4), SEEDS)
def test_folds_of_labels_are_a_partition_and_each_label_is_about_evenly_in_them(
    there: NDArray[np.float32], count: int, seed: int
) -> None:
    folds = label_folds(there, count, seed, NAMES)
    assert np.array_equal(np.sort(np.concatenate([fold.validation for fold in folds])), np.arange(len(there)))
    for fold in folds:
        assert np.array_equal(np.union1d(fold.train, fold.validation), np.arange(len(there)))
        assert not np.intersect1d(fold.train, fold.validation).size
        assert there[fold.train].any(axis=0).all()
        assert there[fold.validation].any()
    again = label_folds(there, count, seed, NAMES)
    assert all(np.array_equal(one.validation, other.validation) for one, other in zip(folds, again, strict=True))


def test_labels_that_are_alone_are_dealt_evenly() -> None:
    there = np.repeat(np.eye(3, dtype=np.float32), (6, 9, 12), axis=0)
    assert [there[fold.validation].sum(axis=0).tolist() for fold in label_folds(there, 3, 0, NAMES)] == [[2, 3, 4]] * 3


@given(targets(), SEEDS)
def test_draws_are_nested_and_have_each_label(there: NDArray[np.float32], seed: int) -> None:
    few, more = draw_label_rows(there, 6, seed), draw_label_rows(there, 20, seed)
    assert there[few].any(axis=0).all()
    assert set(few) <= set(more)
    assert (len(few), len(more)) == (6, 20)
    values = draw_value_rows(30, 5, seed), draw_value_rows(30, 9, seed)
    assert set(values[0]) <= set(values[1])
    assert len(values[1]) == 9


@given(st.integers(8, 60), st.integers(2, 4), SEEDS)
def test_folds_of_values_are_a_partition_of_equal_parts(rows: int, count: int, seed: int) -> None:
    parts = [fold.validation for fold in value_folds(rows, count, seed)]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_what_cannot_be_dealt_is_refused() -> None:
    there = np.repeat(np.eye(3, dtype=np.float32), (1, 5, 5), axis=0)
    five = np.repeat(np.eye(3, dtype=np.float32), (5, 6, 6), axis=0)
    with pytest.raises(BadData, match=re.escape("Label 'a' has 1 training image, too few for 2 folds; add images of it.")):
        label_folds(there, 2, 0, NAMES)
    with pytest.raises(BadData, match=re.escape("Label 'a' has 5 training images, too few for 6 folds; use at most 5 folds")):
        label_folds(five, 6, 0, NAMES)
    with pytest.raises(BadData, match="There are 5 training images, too few for 3 folds"):
        value_folds(5, 3, 0)
    with pytest.raises(BadOptions, match="at least 2 folds, not 1"):
        value_folds(50, 1, 0)
    with pytest.raises(BadData, match="Cannot draw 2 of 11 training images; draw between 3, to have each label, and 11"):
        draw_label_rows(there, 2, 0)
