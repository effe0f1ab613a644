from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tuning.data.folds import draw_rows, make_folds
from tuning.errors import BadData, BadOptions

SEEDS = st.integers(0, 2**63 - 1)


@st.composite
def targets(draw: st.DrawFn, fewest: int) -> NDArray[np.int64]:
    """Shuffled targets of 2 to 5 classes with at least `fewest` members each; class numbers have gaps."""
    sizes = draw(st.lists(st.integers(fewest, 20), min_size=2, max_size=5))
    rows = np.repeat(np.arange(len(sizes)) * 3, sizes)
    return np.random.default_rng(draw(st.integers(0, 9))).permutation(rows).astype(np.int64)


@given(targets(fewest=4), st.integers(2, 4), SEEDS)
def test_folds_are_a_stratified_partition(labels: NDArray[np.int64], count: int, seed: int) -> None:
    folds = make_folds(labels, count, seed)
    assert np.array_equal(np.sort(np.concatenate([fold.validation for fold in folds])), np.arange(len(labels)))
    for fold in folds:
        assert np.array_equal(np.union1d(fold.train, fold.validation), np.arange(len(labels)))
        assert not np.intersect1d(fold.train, fold.validation).size
    sizes = [len(fold.validation) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for target in np.unique(labels):
        members = [int((labels[fold.validation] == target).sum()) for fold in folds]
        assert max(members) - min(members) <= 1


def test_folds_depend_on_the_seed_only() -> None:
    labels = np.arange(60) % 3
    first, again, other = (make_folds(labels, 5, seed)[0].validation for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_fixed_validation_split_is_the_only_fold() -> None:
    (fold,) = make_folds(np.array([0, 0, 1, 1, 0]), 5, 0, validation=np.array([4, 2]))
    assert fold.validation.tolist() == [2, 4]
    assert fold.train.tolist() == [0, 1, 3]


def test_too_few_images_for_the_folds_name_the_class_and_what_would_do() -> None:
    labels = np.array([0] * 9 + [1] * 3)
    with pytest.raises(BadData, match="Class 'rose' has 3 training images, too few for 5 folds; use at most 3 folds"):
        make_folds(labels, 5, 0, labels=("tulip", "rose"))
    assert len(make_folds(labels, 3, 0)) == 3
    with pytest.raises(BadData, match="Class 1 has 1 training image, too few for 2 folds; add images of it"):
        make_folds(np.array([0, 0, 1]), 2, 0)
    with pytest.raises(BadData, match="no training images"):
        make_folds(np.array([], np.int64), 2, 0)
    with pytest.raises(BadOptions, match="at least 2 folds, not 1"):
        make_folds(labels, 1, 0)


@given(targets(fewest=1), SEEDS, st.data())
def test_draws_are_nested_and_in_proportion(labels: NDArray[np.int64], seed: int, data: st.DataObject) -> None:
    present, sizes = np.unique(labels, return_counts=True)
    counts = st.integers(len(present), len(labels))
    few, many = sorted((data.draw(counts), data.draw(counts)))
    small, large = draw_rows(labels, few, seed), draw_rows(labels, many, seed)
    assert len(np.unique(small)) == few
    assert np.isin(small, large).all()
    drawn = np.array([(labels[large] == target).sum() for target in present])
    assert drawn.min() >= 1
    # A class has no more than its share, but for the one image that each has at least, and rounding.
    assert (drawn <= np.maximum(1, sizes * many / len(labels) + 1)).all()


def test_a_draw_of_balanced_classes_is_balanced() -> None:
    labels = np.arange(400) % 10
    assert np.bincount(labels[draw_rows(labels, 100, 7)]).tolist() == [10] * 10


def test_impossible_draws_are_refused() -> None:
    labels = np.array([0, 1, 1, 2])
    for count in (2, 5):
        with pytest.raises(BadData, match=f"Cannot draw {count} of 4 test images in 3 classes; draw between 3 and 4"):
            draw_rows(labels, count, 0, "test")
