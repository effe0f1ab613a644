"""A greedy step that trains only the upper part of its candidates, by a cheap rank. Pure: whoever calls it trains, or looks things up.

So one piece of code searches, and tells from the ledgers of exhaustive searches what it would have chosen
(`tuning.search.rank_replay`). Ranks are by

- "epoch": the loss on one fold after a single epoch of training.
- "gradients": the norm of a block's gradient over that of its weights, at the pretrained weights under a head that was trained first;
  of several blocks the sum. That is the criterion of Auto-RGN (surgical finetuning, arXiv 2210.11466), for blocks instead of tensors.
  ZEST (openreview.net/forum?id=f7t7AOseAa) ranks layers by several such zero-shot metrics, finds none that holds for all networks and
  data, and so learns a predictor over them; TAPS (arXiv 2203.16708) learns a score of each layer together with its weights. Neither is
  done here.
- "singles": what the block that is added scored alone. Costs nothing after the first step, in which every candidate is trained.

Halving goes on from there: over folds, the lower half of the candidates is given up after each fold; over steps, a block that fell out
in one step is no candidate in the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol

from tuning.errors import BadOptions
from tuning.search.greedy import Direction, Preference
from tuning.search.score import Score, Subset, pareto_front

Halving = Literal["none", "folds", "steps", "both"]


@dataclass(frozen=True)
class Rank:
    """What candidates are ranked by.

    proxy: kind of measurement, "" for none. measure: which of its values. sign: -1 where less is better.
    """

    proxy: str
    measure: str = ""
    sign: float = 1.0


# The first three are offered; the others are looked at beside them, as they cost nothing more.
RANKS: Mapping[str, Rank] = MappingProxyType(
    {
        "epoch": Rank("epoch", "validation_loss", -1.0),
        "gradients": Rank("gradients", "relative"),
        "singles": Rank(""),
        "epoch, score": Rank("epoch", "score"),
        "epoch, training loss": Rank("epoch", "training_loss", -1.0),
        "gradients, norm": Rank("gradients", "norm"),
        "gradients, sum": Rank("gradients", "sum"),
    }
)


@dataclass(frozen=True)
class Ranking:
    """rank: a name in `RANKS`. keep: the share of candidates that is trained, rounded up. halving: see the module.

    Raises BadOptions for an unknown rank, a share that is none.
    """

    rank: str
    keep: float = 0.5
    halving: Halving = "none"

    def __post_init__(self) -> None:
        if self.rank not in RANKS:
            raise BadOptions(f"Unknown rank {self.rank!r}; known are: {', '.join(RANKS)}.")
        if not 0 < self.keep <= 1:
            raise BadOptions(f"The share of candidates to train must be over 0 and at most 1, not {self.keep:g}.")

    @property
    def over_folds(self) -> bool:
        """Whether candidates are given up after each fold, though they might still win."""
        return self.halving in ("folds", "both")

    @property
    def over_steps(self) -> bool:
        """Whether blocks that fell out are gone for good."""
        return self.halving in ("steps", "both")


class Trainings(Protocol):
    """What a ranked step asks for."""

    @property
    def folds(self) -> int:
        """How many folds there are."""

    def run(self, subsets: Sequence[Subset], fold: int) -> None:
        """Train these subsets on one fold, if that was not done."""

    def scores(self, subsets: Sequence[Subset]) -> Mapping[Subset, Score]:
        """Return the scores by what was run so far, without subsets of which nothing was."""

    def values(self, rank: Rank, subsets: Sequence[Subset]) -> Mapping[Subset, float]:
        """Return what to rank by, more being better; of a rank without a proxy nothing."""


class RankedEvaluate:
    """An `Evaluate` for the greedy search: of several subsets, the best by `preference` is complete; others may be missing.

    Subsets of which every fold is known already stay in, as they cost nothing. Raises BadOptions for halving over steps of a search that
    is not forward.
    """

    def __init__(self, ranking: Ranking, trainings: Trainings, preference: Preference, direction: Direction) -> None:
        if direction != "forward" and ranking.over_steps:
            raise BadOptions(f"Halving over steps is for a forward search, not one of the direction {direction!r}.")
        self._ranking = ranking
        self._rank = RANKS[ranking.rank]
        self._trainings = trainings
        self._preference = preference
        self._fallen: set[str] = set()

    def __call__(self, subsets: Sequence[Subset]) -> Mapping[Subset, Score]:
        """Return the scores of those that were trained, complete or not."""
        kept = self._keep(subsets) if len(subsets) > 1 else list(subsets)
        if len(kept) > 1 and self._ranking.over_folds:
            self._halve(kept)
        else:
            self._race(kept)
        return self._trainings.scores(kept)

    def _keep(self, subsets: Sequence[Subset]) -> list[Subset]:
        """Return those to train, in order, and remember which blocks fell out."""
        standing = [s for s in subsets if not self._fallen.intersection(s)] or list(subsets)
        known = {s for s, score in self._trainings.scores(standing).items() if score.complete}
        if len(known) == len(standing):
            return standing
        values = self._values(standing)
        if not values:
            return standing
        ordered = sorted(standing, key=lambda s: (-values[s], standing.index(s)))
        kept = known.union(ordered[: math.ceil(self._ranking.keep * len(ordered))], self._front(values))
        if self._ranking.over_steps:
            shared = set(standing[0]).intersection(*standing)
            self._fallen.update(block for s in standing if s not in kept for block in s if block not in shared)
        return [s for s in standing if s in kept]

    def _values(self, subsets: Sequence[Subset]) -> Mapping[Subset, float]:
        if self._rank.proxy:
            return self._trainings.values(self._rank, subsets)
        shared = set(subsets[0]).intersection(*subsets)
        alone = {s: tuple(block for block in s if block not in shared) for s in subsets}
        scores = self._trainings.scores([single for single in alone.values() if len(single) == 1])
        known = {s: scores[single] for s, single in alone.items() if single != s and single in scores}
        if len(known) < len(subsets):
            return {}
        return {s: self._preference.value(single, known[s].worth) for s, single in alone.items()}

    def _front(self, values: Mapping[Subset, float]) -> Iterable[Subset]:
        """Return what no other beats in rank and cost, where costs differ: a rank knows nothing of costs, by which these may win."""
        costs = {s: self._preference.cost(s) for s in values}
        if len(set(costs.values())) == 1:
            return ()
        return pareto_front({s: (costs[s], value) for s, value in values.items()})

    def _halve(self, kept: Sequence[Subset]) -> None:
        """Give up the lower half after each fold but the last."""
        standing = list(kept)
        for fold in range(self._trainings.folds):
            self._trainings.run(standing, fold)
            values = self._worth(standing)
            ordered = sorted(standing, key=lambda s: (-values[s], standing.index(s)))
            standing = ordered[: math.ceil(len(ordered) / 2)]

    def _race(self, kept: Sequence[Subset]) -> None:
        """Give up only what cannot win any more (`tuning.search.evaluate`)."""
        self._trainings.run(kept, 0)
        values = self._worth(kept)
        leader = max(kept, key=lambda s: values[s])
        for fold in range(1, self._trainings.folds):
            self._trainings.run([leader], fold)
        for fold in range(1, self._trainings.folds):
            scores = self._trainings.scores(kept)
            best = max(self._preference.value(s, score.worth) for s, score in scores.items() if score.complete)
            hopeful = [s for s in kept if not scores[s].complete and self._preference.value(s, scores[s].bound) >= best]
            self._trainings.run(hopeful, fold)

    def _worth(self, subsets: Sequence[Subset]) -> dict[Subset, float]:
        return {s: self._preference.value(s, score.worth) for s, score in self._trainings.scores(subsets).items()}


def read_values(
    rank: Rank, subsets: Sequence[Subset], measured: Callable[[Subset], Mapping[str, tuple[float, ...]]], blocks: Sequence[str]
) -> dict[Subset, float]:
    """Return what to rank by. measured: gives the values of a proxy, for "gradients" those of all `blocks` whatever it is asked for."""
    if rank.proxy == "gradients":
        norms = dict(zip(blocks, measured(tuple(blocks))[rank.measure], strict=True))
        return {s: rank.sign * sum(norms[block] for block in s) for s in subsets}
    return {s: rank.sign * measured(s)[rank.measure][0] for s in subsets}
