"""Thresholds of labels: where F1 is best on images that nothing was learnt from."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tuning.training.thresholds import best_threshold

ROWS = st.lists(st.tuples(st.integers(0, 100), st.booleans()), min_size=1, max_size=30)


def f1(scores: NDArray[np.float64], there: NDArray[np.bool_], threshold: float) -> float:
    hits = int(((scores >= threshold) & there).sum())
    wrong, missed = int((scores >= threshold).sum()) - hits, int(there.sum()) - hits
    return hits / (hits + (wrong + missed) / 2) if hits else 0.0


@given(ROWS)
def test_no_threshold_has_a_better_f1(rows: list[tuple[int, bool]]) -> None:
    scores, there = np.array([score for score, _ in rows]) / 100, np.array([yes for _, yes in rows])
    found = best_threshold(scores, there)
    assert 0 <= found <= 1
    if there.any():
        assert all(f1(scores, there, other) <= f1(scores, there, found) + 1e-9 for other in np.arange(1, 101) / 100)


def test_between_what_is_apart_the_middle_is_taken_and_of_nothing_a_half() -> None:
    assert best_threshold(np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, False, True, True])) == 0.4
    assert best_threshold(np.array([0.1, 0.2]), np.array([False, False])) == 0.5
    assert best_threshold(np.array([0.0, 0.0]), np.array([True, False])) == 0.5


def test_many_images_take_little_memory() -> None:
    scores = np.random.default_rng(0).random(4000)
    tracemalloc.start()
    try:
        best_threshold(scores, scores > 0.5)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000  # a number for each pair of images would be 16 MB
    finally:
        tracemalloc.stop()
