from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.errors import BadOptions
from tuning.search.greedy import Preference, StopRule, select
from tuning.search.ranking import RANKS, Rank, RankedEvaluate, Ranking, read_values
from tuning.search.score import Score, Subset

BLOCKS = ("a", "b", "c", "d", "e", "f")
RULE = StopRule(-1.0, max_blocks=2)


class Told:
    """Trainings whose outcome is a table; remembers what was run. rank: what values of a rank are; None: the true means."""

    def __init__(self, table: Mapping[Subset, Sequence[float]], rank: Mapping[Subset, float] | None = None) -> None:
        self.table = table
        self.rank = rank
        self.done: dict[tuple[Subset, int], float] = {}

    @property
    def folds(self) -> int:
        return len(next(iter(self.table.values())))

    def run(self, subsets: Sequence[Subset], fold: int) -> None:
        self.done |= {(subset, fold): self.table[subset][fold] for subset in subsets}

    def scores(self, subsets: Sequence[Subset]) -> dict[Subset, Score]:
        found = {s: tuple(self.done[s, f] for f in range(self.folds) if (s, f) in self.done) for s in subsets}
        return {s: Score(folds, self.folds) for s, folds in found.items() if folds}

    def values(self, rank: Rank, subsets: Sequence[Subset]) -> dict[Subset, float]:
        if not rank.proxy:
            return {}
        return {s: sum(self.table[s]) if self.rank is None else self.rank[s] for s in subsets}

    def all(self, subsets: Sequence[Subset]) -> dict[Subset, Score]:
        for fold in range(self.folds):
            self.run(subsets, fold)
        return self.scores(subsets)

    def trained(self, size: int) -> set[Subset]:
        return {subset for subset, _ in self.done if len(subset) == size}


def subsets_up_to(count: int) -> list[Subset]:
    found: list[Subset] = [()]
    for _ in range(count):
        found += [(*s, b) for s in found for b in BLOCKS if not s or b > s[-1]]
    return sorted(set(found), key=lambda s: (len(s), s))


TABLES = st.fixed_dictionaries(
    {s: st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=3, max_size=3) for s in subsets_up_to(2)}
)


def choose(told: Told, ranking: Ranking, preference: Preference | None = None) -> Subset:
    preference = preference or Preference()
    evaluate = RankedEvaluate(ranking, told, preference, "forward")
    return select("forward", BLOCKS, evaluate, RULE, preference).chosen.subset


def exhaustive(told: Told, preference: Preference | None = None) -> Subset:
    return select("forward", BLOCKS, told.all, RULE, preference or Preference()).chosen.subset


@given(TABLES)
def test_a_rank_that_knows_the_scores_loses_nothing(table: Mapping[Subset, Sequence[float]]) -> None:
    mean = max(sum(folds) for subset, folds in table.items() if len(subset) == 1)
    found = choose(Told(table), Ranking("epoch"))
    assert any(sum(table[(block,)]) == pytest.approx(mean) for block in found)  # the best single block, or one that ties with it


@given(TABLES, st.sampled_from(("epoch", "gradients", "singles")))
def test_keeping_everything_is_the_exhaustive_search(table: Mapping[Subset, Sequence[float]], rank: str) -> None:
    assert choose(Told(table, dict.fromkeys(table, 0.0)), Ranking(rank, keep=1.0)) == exhaustive(Told(table))


@given(TABLES, st.sampled_from(("none", "folds", "steps", "both")))
def test_every_step_ends_with_a_complete_score(table: Mapping[Subset, Sequence[float]], halving: str) -> None:
    told = Told(table)
    found = choose(told, Ranking("epoch", halving=halving))  # type: ignore[arg-type]
    assert len(found) == 2
    assert told.scores([found])[found].complete


def falling(names: Sequence[str] = BLOCKS) -> dict[Subset, Sequence[float]]:
    """a is best, then b, and so on; alone and together."""
    return {s: [0.5 + sum(0.1 / (1 + names.index(b)) for b in s)] * 3 for s in subsets_up_to(2)}


def test_only_the_upper_half_is_trained() -> None:
    told = Told(falling())
    assert choose(told, Ranking("epoch")) == ("a", "b")
    assert told.trained(1) == {("a",), ("b",), ("c",)}
    assert told.trained(2) == {("a", "b"), ("a", "c"), ("a", "d")}


def test_a_rank_that_is_wrong_is_believed() -> None:
    told = Told(falling(), rank={s: -sum(folds) for s, folds in falling().items()})
    assert choose(told, Ranking("epoch")) == ("c", "d")  # the best of the lower half, and beside it the best of three more


def test_halving_over_steps_forgets_blocks_for_good() -> None:
    told = Told(falling())
    assert choose(told, Ranking("epoch", halving="steps")) == ("a", "b")
    assert told.trained(2) == {("a", "b")}  # of b and c, the upper half


def test_halving_over_folds_runs_fewer_folds_of_the_worse() -> None:
    told = Told(falling())
    choose(told, Ranking("epoch", keep=1.0, halving="folds"))
    folds = {block: sum((subset == (block,)) for subset, _ in told.done) for block in BLOCKS}
    assert folds == {"a": 3, "b": 3, "c": 2, "d": 1, "e": 1, "f": 1}


def test_racing_gives_up_only_what_cannot_win() -> None:
    table = {**falling(), ("a",): [1.0, 1.0, 1.0], ("b",): [0.0, 1.0, 1.0]}
    told = Told(table)
    choose(told, Ranking("epoch"))
    assert sum(subset == ("b",) for subset, _ in told.done) == 1


def test_singles_train_everything_once_and_rank_from_then_on() -> None:
    told = Told(falling())
    assert choose(told, Ranking("singles")) == ("a", "b")
    assert told.trained(1) == {(block,) for block in BLOCKS}
    assert told.trained(2) == {("a", "b"), ("a", "c"), ("a", "d")}


def test_what_is_known_stays_in() -> None:
    told = Told(falling(), rank={s: -sum(folds) for s, folds in falling().items()})
    told.all([("a",)])
    assert "a" in choose(told, Ranking("epoch"))


def test_what_may_win_by_its_cost_stays_in() -> None:
    told = Told(falling())
    cheap = Preference(value=lambda s, accuracy: accuracy - 0.5 * ("f" not in s), cost=lambda s: float("f" not in s))
    assert "f" in choose(told, Ranking("epoch"), cheap)
    assert exhaustive(Told(falling()), cheap)[-1] == "f"
    assert "f" not in choose(Told(falling()), Ranking("epoch"))


@pytest.mark.parametrize("direction", ["backward", "both"])
def test_halving_over_steps_is_for_forward_searches(direction: str) -> None:
    with pytest.raises(BadOptions, match=rf"is for a forward search, not one of the direction '{direction}'"):
        RankedEvaluate(Ranking("epoch", halving="both"), Told(falling()), Preference(), direction)  # type: ignore[arg-type]


def test_impossible_rankings_are_refused() -> None:
    with pytest.raises(BadOptions, match="Unknown rank 'luck'; known are: epoch, gradients, singles"):
        Ranking("luck")
    for keep in (0.0, 1.5, math.nan):
        with pytest.raises(BadOptions, match="over 0 and at most 1"):
            Ranking("epoch", keep)


def test_ranks_read_measures_with_their_direction() -> None:
    def measured(subset: Subset) -> dict[str, tuple[float, ...]]:
        if subset == BLOCKS:
            return {"relative": (6.0, 5.0, 4.0, 3.0, 2.0, 1.0)}
        return {"validation_loss": (0.25,), "score": (0.75,)}

    assert read_values(RANKS["epoch"], [("a",)], measured, BLOCKS) == {("a",): -0.25}
    assert read_values(RANKS["epoch, score"], [("a",)], measured, BLOCKS) == {("a",): 0.75}
    assert read_values(RANKS["gradients"], [("a", "f"), ("c",)], measured, BLOCKS) == {("a", "f"): 7.0, ("c",): 4.0}
