from __future__ import annotations

from contract.histogram import DURATION_BOUNDS_S, DurationCounter, Histogram


def of(*seconds: float) -> Histogram:
    counter = DurationCounter()
    for second in seconds:
        counter.add(second)
    return counter.snapshot()


def test_quantiles_lie_evenly_within_a_bucket() -> None:
    assert of(0.03, 0.03).quantile(0.5) == 0.025 + (0.05 - 0.025) / 2
    assert of(0.03, 0.03).quantile(1.0) == 0.05
    assert of(0.0001).quantile(0.5) == DURATION_BOUNDS_S[0] / 2
    assert of(0.001, 0.001, 0.001, 2.0).quantile(0.75) == 0.001
    assert of(0.001, 0.001, 0.001, 2.0).quantile(0.95) > 1.0


def test_of_what_is_beyond_all_bounds_the_last_one_is_told_and_of_nothing_nothing() -> None:
    assert of(0.03, 60.0, 70.0).quantile(0.95) == DURATION_BOUNDS_S[-1]
    assert of().quantile(0.5) is None
