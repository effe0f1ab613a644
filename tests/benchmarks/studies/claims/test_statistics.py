from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.studies.claims.statistics import agreement, compare_pairs, permutation_p, spread


def test_a_permutation_test_of_few_pairs_has_a_floor() -> None:
    assert permutation_p([1.0, 2.0, 3.0]) == 0.25
    assert permutation_p([0.1] * 5) == 2 / 32
    assert permutation_p([1.0, -1.0]) == 1.0


@given(st.lists(st.integers(-20, 20).map(float), min_size=2, max_size=8))
def test_the_permutation_test_is_scipys(differences: list[float]) -> None:
    def mean(sample: list[float], axis: int) -> object:
        import numpy as np

        return np.mean(sample, axis=axis)

    expected = stats.permutation_test((differences,), mean, permutation_type="samples", n_resamples=math.inf)
    assert permutation_p(differences) == pytest.approx(float(expected.pvalue))


def test_many_pairs_are_drawn_alike_every_time() -> None:
    differences = [0.5, -0.4] * 10 + [0.3]
    assert permutation_p(differences) == permutation_p(differences)
    assert permutation_p([1.0] * 20) < 1e-4


def test_pairs_are_compared_as_scipy_does() -> None:
    ours, theirs = [0.6, 0.7, 0.65, 0.8], [0.5, 0.68, 0.66, 0.7]
    found = compare_pairs(ours, theirs)
    expected = stats.ttest_rel(ours, theirs)
    interval = expected.confidence_interval(0.95)
    assert found.p_student == pytest.approx(float(expected.pvalue))
    assert (found.low, found.high) == pytest.approx((float(interval.low), float(interval.high)))
    assert (found.pairs, found.mean) == (4, pytest.approx(0.0525))


def test_a_single_pair_has_no_interval() -> None:
    found = compare_pairs([0.6], [0.5])
    assert found.mean == pytest.approx(0.1)
    assert all(map(math.isnan, (found.low, found.high, found.p_student, found.p_permutation)))


def test_equal_pairs_have_no_t() -> None:
    found = compare_pairs([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    assert math.isnan(found.p_student)
    assert found.p_permutation == 1.0
    assert found.low == found.high == 0.0


def test_choices_agree_by_what_they_share() -> None:
    assert agreement([("a",), ("a",), ("a",)]) == 1.0
    assert agreement([("a", "b"), ("b", "c")]) == pytest.approx(1 / 3)
    assert agreement([(), ()]) == 1.0
    assert math.isnan(agreement([("a",)]))
    assert spread([0.5]) == (0.5, 0.0)
