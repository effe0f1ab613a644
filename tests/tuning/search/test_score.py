from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tuning.search.score import Objective, Score, SubsetCost, pareto_front

ACCURACIES = st.lists(st.floats(0, 1), min_size=1, max_size=5)


def test_mean_and_deviation() -> None:
    score = Score((0.5, 0.7), 5)
    assert abs(score.mean - 0.6) < 1e-12
    assert abs(score.deviation - 0.02**0.5) < 1e-12
    assert not score.complete
    assert abs(score.bound - (1.2 + 3) / 5) < 1e-12


@given(ACCURACIES, st.data())
def test_no_outcome_of_the_remaining_folds_beats_the_bound(folds: list[float], data: st.DataObject) -> None:
    ran = data.draw(st.integers(1, len(folds)))
    assert Score(tuple(folds), len(folds)).mean <= Score(tuple(folds[:ran]), len(folds)).bound + 1e-12


def test_an_objective_counts_in_units_of_accuracy() -> None:
    cost = SubsetCost(macs=200, weight_bytes=10, macs_share=0.2, bytes_share=0.5, latency_ms=3.0)
    assert abs(Objective(macs_weight=0.05).value(0.9, cost) - 0.89) < 1e-12
    assert abs(Objective(bytes_weight=0.02).value(0.9, cost) - 0.89) < 1e-12
    assert Objective(latency_budget_ms=3.0).allows(cost)
    assert not Objective(latency_budget_ms=2.9).allows(cost)
    assert not Objective().needs_cost


@given(st.dictionaries(st.text("ab", min_size=1, max_size=3).map(lambda t: (t,)), st.tuples(st.floats(0, 1), st.floats(0, 1))))
def test_nothing_beats_what_is_on_the_front_and_something_beats_the_rest(points: dict[tuple[str], tuple[float, float]]) -> None:
    front = pareto_front(points)  # type: ignore[arg-type]
    for subset, (cost, accuracy) in points.items():
        others = [(other, *points[other]) for other in points if other != subset]
        beaten = any(c <= cost and a >= accuracy and ((c, a) != (cost, accuracy) or other < subset) for other, c, a in others)
        assert (subset in front) == (not beaten)
