"""What a ranked search would have chosen, and what it would have taken: told from the ledger of an exhaustive one, without training.

The ledger must hold every fold of what the ranked search trains, and the proxies that it asks for. The code that decides is the
search's own (`tuning.search.ranking`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuning.search.greedy import Direction, Selection, StopRule, select
from tuning.search.ledger import LedgerContents, Trial
from tuning.search.proxy import Proxy
from tuning.search.ranking import Rank, RankedEvaluate, Ranking, read_values
from tuning.search.replay import MissingCosts, MissingScores, make_preference, searched_blocks
from tuning.search.score import CostOf, Objective, Score, Subset, SubsetCost

_METHODS = {False: "subtuning", True: "siamese subtuning"}


@dataclass(frozen=True)
class Effort:
    """What trainings and proxies took. trainings: whole ones. epochs: proxies' included, as in all that follows.

    seconds: by the clock. processor_s: None where one of them was not measured alone.
    """

    trainings: int
    epochs: int
    macs: int
    seconds: float
    processor_s: float | None

    @classmethod
    def of(cls, trials: Iterable[Trial], proxies: Iterable[Proxy] = ()) -> Effort:
        """Return the sum."""
        trials = tuple(trials)
        everything: list[Trial | Proxy] = [*trials, *proxies]
        alone = [one.processor_s for one in everything if one.processor_s is not None]
        return cls(
            len(trials),
            sum(one.epochs for one in everything),
            sum(one.macs for one in everything),
            sum(one.seconds for one in everything),
            sum(alone) if len(alone) == len(everything) else None,
        )


@dataclass(frozen=True)
class RankedReplay:
    """A selection and what finding it takes."""

    selection: Selection
    effort: Effort


def replay_ranked(
    contents: LedgerContents, ranking: Ranking | None, direction: Direction, rule: StopRule, objective: Objective
) -> RankedReplay:
    """Return what a search ranked by `ranking` would choose; of None: an exhaustive one, every fold of every candidate.

    Raises MissingScores where the ledger ends, BadOptions.
    """
    told = _LedgerTrainings(contents)
    preference = make_preference(objective, _cost_of(contents), contents.header.metric)
    if ranking is not None:
        evaluate = RankedEvaluate(ranking, told, preference, direction)
        found = select(direction, searched_blocks(contents), evaluate, rule, preference)
    else:
        found = select(direction, searched_blocks(contents), told.all, rule, preference)
    return RankedReplay(found, told.effort)


class _LedgerTrainings:
    """Trainings that were done, told when they are asked for; what was asked for is counted."""

    def __init__(self, contents: LedgerContents) -> None:
        self._folds, self._metric = contents.header.folds, contents.header.metric
        self._blocks = tuple(block.name for block in contents.header.blocks)
        method = _METHODS[bool(contents.header.training.get("siamese"))]
        trials = [t for t in contents.trials if t.fold is not None and (t.method == method or not t.subset)]
        self._trials = {(trial.subset, trial.fold): trial for trial in trials}
        self._proxies = {(proxy.name, proxy.subset): proxy for proxy in contents.proxies}
        self._told: dict[tuple[Subset, int], Trial] = {}
        self._measured: dict[tuple[str, Subset], Proxy] = {}

    @property
    def folds(self) -> int:
        """How many folds there are."""
        return self._folds

    @property
    def effort(self) -> Effort:
        """What everything that was asked for took."""
        return Effort.of(self._told.values(), self._measured.values())

    def run(self, subsets: Sequence[Subset], fold: int) -> None:
        """Look these trainings up. Raises MissingScores."""
        missing = [subset for subset in subsets if (subset, fold) not in self._trials]
        if missing:
            raise MissingScores(missing)
        self._told |= {(subset, fold): self._trials[subset, fold] for subset in subsets}

    def scores(self, subsets: Sequence[Subset]) -> Mapping[Subset, Score]:
        """Return the scores by what was asked for so far."""
        found = {s: [self._told[s, f].score for f in range(self._folds) if (s, f) in self._told] for s in subsets}
        return {subset: Score(tuple(folds), self._folds, self._metric) for subset, folds in found.items() if folds}

    def all(self, subsets: Sequence[Subset]) -> Mapping[Subset, Score]:
        """Return complete scores."""
        for fold in range(self._folds):
            self.run(subsets, fold)
        return self.scores(subsets)

    def values(self, rank: Rank, subsets: Sequence[Subset]) -> Mapping[Subset, float]:
        """Return what to rank by, more being better."""
        if not rank.proxy:
            return {}
        return read_values(rank, subsets, lambda subset: self._look_up(rank.proxy, subset).values, self._blocks)

    def _look_up(self, name: str, subset: Subset) -> Proxy:
        if (name, subset) not in self._proxies:
            raise MissingScores([subset])
        return self._measured.setdefault((name, subset), self._proxies[name, subset])


def _cost_of(contents: LedgerContents) -> CostOf:
    def cost(subset: Subset) -> SubsetCost:
        if subset not in contents.costs:
            raise MissingCosts(subset, "what it costs to serve")
        return contents.costs[subset]

    return cost
