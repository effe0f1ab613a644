"""A search over one backbone and one data set: what the commands profile and greedy do, on one ledger."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tuning.data.folds import Fold
from tuning.data.labelled import TaskData, fingerprint
from tuning.errors import BadOptions
from tuning.kinds.registry import objective_of
from tuning.network.backbone import Backbone, block_macs
from tuning.network.libraries import versions
from tuning.search.evaluate import Evaluator
from tuning.search.greedy import Direction, Selection, StopRule, select
from tuning.search.ledger import BlockFacts, Header, LedgerContents, open_ledger
from tuning.search.proxies import SearchTrainings
from tuning.search.ranking import RankedEvaluate, Ranking
from tuning.search.replay import check_budget, describe_selection, make_preference
from tuning.search.score import CostOf, Evaluate, Objective, Score, Subset, SubsetCost
from tuning.training.features import FeatureStore
from tuning.training.loop import FitOptions, OnEpoch
from tuning.training.methods import PROBE_FACTOR, Method, linear_probe, subtuning
from tuning.training.trainer import Trainer

# What decides about a training's result, beside the seed.
_DECISIVE = ("epochs", "lr", "weight_decay", "batch_size", "views", "flip", "precision")


@dataclass(frozen=True)
class SearchOptions:
    """folds: of the training images. blocks: candidates, None: all. workers: trainings side by side, None: as many as make sense.

    siamese: heads see the frozen features, too. race: candidates that cannot win any more are given up.
    ranking: which candidates of a greedy step are trained at all; None: every one, and so the outcome is exact.
    """

    folds: int = 5
    blocks: Subset | None = None
    workers: int | None = None
    siamese: bool = False
    race: bool = True
    ranking: Ranking | None = None


class Search:
    """An open search. cost: what serving a subset would cost, if the objective or the plots want it."""

    def __init__(
        self, evaluator: Evaluator, folds: Sequence[Fold], blocks: Subset, options: SearchOptions, cost: CostOf | None = None
    ) -> None:
        self._evaluator = evaluator
        self._folds = folds
        self._options = options
        self._cost = cost
        self.blocks = blocks

    def profile(self, pairs: bool = False) -> dict[Subset, Score]:
        """Return the finetuning profile: the score of the head alone, of each single block and, with `pairs`, of each two."""
        subsets: list[Subset] = [(), *((block,) for block in self.blocks)]
        if pairs:
            subsets += list(itertools.combinations(self.blocks, 2))
        return self._score(subsets)

    def select(self, direction: Direction, rule: StopRule, objective: Objective) -> Selection:
        """Return the greedy selection, and note it in the ledger. Raises BadOptions when nothing is within the latency budget."""
        preference = make_preference(objective, self._cost_of, self._evaluator.ledger.header.metric)

        def evaluate(subsets: Sequence[Subset]) -> Mapping[Subset, Score]:
            return self._score(subsets, preference.value if self._options.race else None)

        check_budget(objective, self._cost_of)
        ranking = self._options.ranking
        chosen = evaluate if ranking is None else self._ranked(RankedEvaluate(ranking, self.trainings, preference, direction))
        found = select(direction, self.blocks, chosen, rule, preference)
        self._evaluator.ledger.note(describe_selection(found, rule, objective, ranking, self.blocks))
        return found

    @property
    def trainings(self) -> SearchTrainings:
        """What the search trains and measures, one by one."""
        return SearchTrainings(self._evaluator, self._folds, self.blocks, self._method_of)

    @property
    def contents(self) -> LedgerContents:
        """What is in the ledger now."""
        return self._evaluator.ledger.contents

    def _cost_of(self, subset: Subset) -> SubsetCost:
        if self._cost is None:
            raise BadOptions("Costs were asked for, but nothing says what serving a subset costs.")
        return self._cost(subset)

    def _ranked(self, evaluate: RankedEvaluate) -> Evaluate:
        def priced(subsets: Sequence[Subset]) -> Mapping[Subset, Score]:
            self._note_costs(subsets)
            return evaluate(subsets)

        return priced

    def _note_costs(self, subsets: Sequence[Subset]) -> None:
        if self._cost is not None:
            for subset in subsets:
                self._evaluator.ledger.add_cost(subset, self._cost(subset))

    def _method_of(self, subset: Subset) -> Method:
        return _make_method(subset, self._evaluator.trainer.options, self._options.siamese)

    def _score(self, subsets: Sequence[Subset], value: Callable[[Subset, float], float] | None = None) -> dict[Subset, Score]:
        """Return the scores of `subsets`; with a `value` to race for, complete only for those that may be the best."""
        self._note_costs(subsets)
        options = self._evaluator.trainer.options
        methods = {self._method_of(subset): subset for subset in subsets}
        if value is None or len(subsets) < 2:
            scores = self._evaluator.cross_validate(methods, self._folds, options.seed)
        else:
            scores = self._evaluator.race(methods, self._folds, options.seed, lambda m, worth: value(methods[m], worth))
        return {methods[method]: score for method, score in scores.items()}


@contextmanager
def open_search(
    backbone: Backbone,
    data: TaskData,
    fit_options: FitOptions,
    options: SearchOptions,
    ledger: Path,
    *,
    cost: CostOf | None = None,
    on_epoch: OnEpoch | None = None,
    say: Callable[[str], None] | None = None,
) -> Iterator[Search]:
    """Open a search whose trainings go to the file `ledger`, or go on with it.

    say: is told the size of the frozen features before they are computed. Raises BadData (too few images for the folds), UnknownBlock,
    LedgerMismatch, LedgerInUse, BadLedger, CannotWrite.
    """
    folds = objective_of(data).folds(options.folds, fit_options.seed)
    blocks = backbone.blocks if options.blocks is None else options.blocks
    header = make_header(backbone, data, fit_options, len(folds), options.siamese)
    store = FeatureStore(fit_options.cache_bytes, fit_options.cache_folder, say)
    try:
        with open_ledger(ledger, header) as opened:
            evaluator = Evaluator(Trainer(backbone, data, fit_options, store), opened, options.workers, on_epoch)
            yield Search(evaluator, folds, blocks, options, cost)
    finally:
        store.close()


def _make_method(subset: Subset, options: FitOptions, siamese: bool = False) -> Method:
    """Return how a search tunes `subset`. A head alone takes ten times the learning rate of the options."""
    if subset or siamese or options.lr is None:
        return subtuning(subset, options.epochs, siamese=siamese)
    return linear_probe(options.epochs, PROBE_FACTOR * options.lr)


def make_header(backbone: Backbone, data: TaskData, options: FitOptions, folds: int, siamese: bool = False) -> Header:
    """Return the first line of a ledger. folds: 0 for a comparison on the test split."""
    total, by_block = block_macs(backbone)
    fields = {name: value for name, value in asdict(options).items() if name in _DECISIVE}
    return Header(
        backbone=backbone.spec.architecture,
        weights=backbone.spec.weights,
        weights_sha256=backbone.spec.weights_sha256,
        data=data.name,
        data_sha256=fingerprint(data),
        train_images=len(data.train),
        classes=len(data.labels),
        folds=folds,
        seed=options.seed,
        training={**fields, "siamese": siamese},
        blocks=tuple(BlockFacts(block, _parameters(backbone, block), by_block[block]) for block in backbone.blocks),
        macs=total,
        versions=versions(),
        kind=data.kind.word(),
        metric=objective_of(data).metric,
    )


def _parameters(backbone: Backbone, path: str) -> int:
    return sum(parameter.numel() for parameter in backbone.network.get_submodule(path).parameters())
