from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.search.greedy import Preference, Selection, StopRule, select
from tuning.search.score import Score, Subset

BLOCKS = ("a", "b", "c", "d")


class Scorer:
    """Scores of subsets by a function; remembers what it was asked."""

    def __init__(self, accuracy: Mapping[Subset, float] | None = None, gains: Mapping[str, float] | None = None) -> None:
        self.accuracy = accuracy or {}
        self.gains = gains or {}
        self.asked: list[Subset] = []

    def __call__(self, subsets: Sequence[Subset]) -> dict[Subset, Score]:
        self.asked += subsets
        return {s: Score((self.accuracy.get(s, 0.5 + sum(self.gains.get(b, 0.0) for b in s)),), 1) for s in subsets}


def chosen(selection: Selection) -> Subset:
    return selection.chosen.subset


def test_forward_adds_the_best_until_it_gains_too_little() -> None:
    scorer = Scorer(gains={"a": 0.01, "b": 0.2, "c": 0.05, "d": 0.001})
    found = select("forward", BLOCKS, scorer, StopRule(epsilon=0.02))
    assert [step.block for step in found.steps] == [None, "b", "c"]
    assert chosen(found) == ("b", "c")
    assert "a, gains +1.00 %" in found.why


def test_the_number_of_evaluations_is_that_of_the_paper() -> None:
    scorer = Scorer(gains=dict.fromkeys(BLOCKS, 0.1))
    select("forward", BLOCKS, scorer, StopRule(epsilon=0.0, max_blocks=2))
    assert len(scorer.asked) == 1 + 4 + 3


def test_backward_removes_what_costs_least() -> None:
    scorer = Scorer(gains={"a": 0.01, "b": 0.2, "c": 0.05, "d": 0.001})
    found = select("backward", BLOCKS, scorer, StopRule(epsilon=0.02))
    assert [step.block for step in found.steps] == [None, "d", "a"]
    assert chosen(found) == ("b", "c")


def test_a_tolerated_drop_gives_the_smallest_subset_near_the_best() -> None:
    accuracy = {(): 0.5, ("a",): 0.7, ("a", "b"): 0.72, ("a", "b", "c"): 0.73, BLOCKS: 0.71}
    scorer = Scorer({**dict.fromkeys((("b",), ("c",), ("d",)), 0.0), **accuracy})
    found = select("forward", BLOCKS, scorer, StopRule(epsilon=0.015, meaning="drop"))
    assert chosen(found) == ("a", "b")
    by_gain = select("forward", BLOCKS, scorer, StopRule(epsilon=0.015, meaning="gain"))
    assert chosen(by_gain) == ("a", "b")
    assert chosen(select("forward", BLOCKS, scorer, StopRule(epsilon=0.005, meaning="drop"))) == ("a", "b", "c")


def test_a_drop_ends_the_search_when_a_step_falls_too_far() -> None:
    scorer = Scorer({(): 0.9}, gains={"a": -0.3, "b": -0.4, "c": -0.4, "d": -0.4})
    found = select("forward", BLOCKS, scorer, StopRule(epsilon=0.1, meaning="drop"))
    assert [step.subset for step in found.steps] == [()]


def test_both_takes_the_better_end_and_the_smaller_on_a_tie() -> None:
    trap = Scorer({(): 0.5, BLOCKS: 0.9, ("b", "c", "d"): 0.95}, gains={})  # nothing gains alone
    assert chosen(select("both", BLOCKS, trap, StopRule(epsilon=0.01))) == ("b", "c", "d")
    flat = Scorer(gains={})
    assert chosen(select("both", BLOCKS, flat, StopRule(epsilon=0.0))) == ()


def test_max_blocks_forces_a_backward_search_on() -> None:
    scorer = Scorer(gains={"a": 0.1, "b": 0.2, "c": 0.15, "d": 0.05})
    found = select("backward", BLOCKS, scorer, StopRule(epsilon=0.01, max_blocks=2))
    assert chosen(found) == ("b", "c")


def test_a_cheaper_block_of_the_same_accuracy_wins() -> None:
    scorer = Scorer(gains={"a": 0.1, "d": 0.1})
    price = {"a": 0.9, "b": 0.5, "c": 0.3, "d": 0.1}
    cost = lambda subset: max((price[b] for b in subset), default=0.0)  # noqa: E731
    weighed = Preference(value=lambda subset, accuracy: accuracy - 0.01 * cost(subset), cost=cost)
    assert chosen(select("forward", BLOCKS, scorer, StopRule(0.005, max_blocks=1), weighed)) == ("d",)
    ties = Preference(cost=cost)
    assert select("forward", BLOCKS, scorer, StopRule(0.005, max_blocks=1), ties).chosen.block == "d"


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_what_is_over_the_budget_is_not_chosen(direction: str) -> None:
    scorer = Scorer(gains={"a": 0.3, "b": 0.2, "c": 0.1, "d": 0.05})
    within = Preference(allowed=lambda subset: "a" not in subset and len(subset) < 3)
    found = select(direction, BLOCKS, scorer, StopRule(0.0), within)  # type: ignore[arg-type]
    assert "a" not in chosen(found)
    assert chosen(found) == ("b", "c")


def test_candidates_that_were_given_up_are_not_chosen() -> None:
    def evaluate(subsets: Sequence[Subset]) -> dict[Subset, Score]:
        return {s: Score((0.9,), 2) if s == ("a",) else Score((0.6, 0.6) if s else (0.5, 0.5), 2) for s in subsets}

    assert chosen(select("forward", ("a", "b"), evaluate, StopRule(0.0, max_blocks=1))) == ("b",)


@given(
    st.dictionaries(st.sampled_from(BLOCKS), st.floats(-0.1, 0.1), min_size=4),
    st.floats(0, 0.1),
    st.sampled_from(["forward", "backward", "both"]),
    st.sampled_from(["gain", "drop"]),
    st.one_of(st.none(), st.integers(0, 4)),
)
def test_the_answer_is_on_the_way_in_forward_order_and_within_the_limit(
    gains: dict[str, float], epsilon: float, direction: str, meaning: str, limit: int | None
) -> None:
    found = select(direction, BLOCKS, Scorer(gains=gains), StopRule(epsilon, meaning, limit))  # type: ignore[arg-type]
    assert found.chosen in found.steps
    assert chosen(found) == tuple(b for b in BLOCKS if b in chosen(found))
    assert limit is None or len(chosen(found)) <= limit
    for before, after in zip(found.steps, found.steps[1:], strict=False):
        assert set(before.subset) ^ set(after.subset) == {after.block}


@given(st.dictionaries(st.sampled_from(BLOCKS), st.floats(-0.1, 0.1), min_size=4))
def test_with_gains_that_add_up_forward_and_backward_agree(gains: dict[str, float]) -> None:
    wanted = {block for block, gain in gains.items() if gain > 1e-9}
    for direction in ("forward", "backward"):
        found = set(chosen(select(direction, BLOCKS, Scorer(gains=gains), StopRule(0.0))))
        undecided = {block for block, gain in gains.items() if abs(gain) <= 1e-9}
        assert found - undecided == wanted - undecided
