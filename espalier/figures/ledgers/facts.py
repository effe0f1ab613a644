"""What charts show, taken from ledgers: plain data, without matplotlib."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from espalier.figures.errors import LedgerLacks, OtherBlocks
from espalier.figures.ledgers.source import Source
from tuning.errors import BadOptions
from tuning.kinds.metric import Metric
from tuning.search.greedy import Selection, StopRule, candidates
from tuning.search.ledger import BlockFacts, LedgerContents, Trial
from tuning.search.replay import Noted, make_preference, noted_selections, replay, searched_blocks
from tuning.search.score import Objective, Score, Subset, pareto_front


@dataclass(frozen=True)
class Profile:
    """Scores of the head alone and of the blocks tuned one at a time. best: the best block."""

    source: Source
    blocks: tuple[BlockFacts, ...]
    probe: Score
    scores: Mapping[str, Score]
    best: str


@dataclass(frozen=True)
class _Candidate:
    """A subset that was looked at on the way. complete: all folds were run. block: what it adds or removes."""

    size: int
    value: float
    complete: bool
    block: str


@dataclass(frozen=True)
class GreedyPath:
    """A selection and all that it chose from. noted: a search made it; otherwise it was replayed by the default rule."""

    source: Source
    selection: Selection
    rule: StopRule
    objective: Objective
    candidates: tuple[_Candidate, ...]
    noted: bool

    @property
    def metric(self) -> Metric:
        """What is measured."""
        return self.source.contents.header.metric


@dataclass(frozen=True)
class Line:
    """A method's scores on the test split, one for each seed, by number of training images."""

    name: str
    method: str
    accuracies: Mapping[int, tuple[float, ...]]

    def mean(self, train_images: int) -> float:
        """Return the mean over seeds."""
        return statistics.fmean(self.accuracies[train_images])

    def deviation(self, train_images: int) -> float:
        """Return the standard deviation over seeds, 0 of a single one."""
        values = self.accuracies[train_images]
        return statistics.stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class CostPoints:
    """Accuracy against cost. macs: by subset, per image. measured: they are the ledger's, else sums over blocks from the first tuned
    one on. front: subsets that no other beats, by rising cost. chosen: by the last selection.
    """

    source: Source
    scores: Mapping[Subset, Score]
    macs: Mapping[Subset, int]
    measured: bool
    front: tuple[Subset, ...]
    chosen: Subset | None


def profile_facts(sources: Sequence[Source]) -> tuple[Profile, ...]:
    """Return a profile for each ledger. Raises LedgerLacks, and OtherBlocks when they cannot share an axis."""
    names = [block.name for block in sources[0].contents.header.blocks]
    for other in sources[1:]:
        if [block.name for block in other.contents.header.blocks] != names:
            raise OtherBlocks(sources[0].path, other.path)
    return tuple(_profile(source) for source in sources)


def _profile(source: Source) -> Profile:
    scores = source.scores
    singles = {subset[0]: score for subset, score in scores.items() if len(subset) == 1}
    if not singles or () not in scores:
        missing = "no block that was tuned alone" if () in scores else "no linear probe to compare with"
        raise LedgerLacks(source.path, missing, "run tune profile")
    blocks = source.contents.header.blocks
    complete = [name for name, score in singles.items() if score.complete] or list(singles)
    return Profile(source, blocks, scores[()], singles, max(complete, key=lambda name: singles[name].worth))


def has_all_pairs(source: Source) -> bool:
    """Return whether every two of the searched blocks were tuned together, on all folds."""
    scores, blocks = source.scores, searched_blocks(source.contents)
    return len(blocks) > 1 and all(pair in scores and scores[pair].complete for pair in combinations(blocks, 2))


def pair_facts(source: Source) -> tuple[Subset, dict[Subset, Score]]:
    """Return the searched blocks and the scores of the head alone, of single blocks and of pairs. Raises LedgerLacks."""
    scores = {subset: score for subset, score in source.scores.items() if len(subset) <= 2 and score.complete}
    if not any(len(subset) == 2 for subset in scores):
        raise LedgerLacks(source.path, "no pairs of blocks", "run tune profile --pairs")
    return searched_blocks(source.contents), scores


def last_noted(source: Source) -> Noted | None:
    """Return the last selection that the ledger notes."""
    noted = noted_selections(source.contents)
    return noted[-1] if noted else None


def path_facts(source: Source) -> GreedyPath:
    """Return the last selection that is noted, or else what forward selection by the default rule gives. Raises LedgerLacks."""
    scores = source.scores
    noted = last_noted(source)
    found = noted or _replayed(source)
    sizes_by_step = {step.subset for step in found.selection.steps}
    preference = make_preference(found.objective, lambda subset: source.contents.costs[subset], source.contents.header.metric)
    priced = source.contents.costs.keys() if found.objective.needs_cost else scores.keys()
    looked_at = _neighbours(found.selection, searched_blocks(source.contents))
    candidates = [
        _Candidate(len(subset), preference.value(subset, scores[subset].worth), scores[subset].complete, looked_at[subset])
        for subset in sorted((looked_at.keys() - sizes_by_step) & scores.keys() & priced)
        if preference.allowed(subset)
    ]
    return GreedyPath(source, found.selection, found.rule, found.objective, tuple(candidates), noted is not None)


def _replayed(source: Source) -> Noted:
    rule, objective = StopRule(source.contents.header.metric.epsilon), Objective()
    try:
        return Noted(replay(source.contents, "forward", rule, objective), rule, objective)
    except BadOptions as error:
        raise LedgerLacks(source.path, "no greedy selection", "run tune greedy") from error


def _neighbours(selection: Selection, blocks: Subset) -> dict[Subset, str]:
    """Return what the steps of a selection chose from, and the block that each adds or removes."""
    steps = (candidates(step.subset, blocks, selection.direction) for step in selection.steps)
    return {subset: block for found in steps for block, subset in found}


def line_facts(source: Source) -> tuple[Line, ...]:
    """Return a line for each method, or for each variant where a method has several at once. Raises LedgerLacks."""
    trials = [trial for trial in source.contents.trials if trial.fold is None]
    if not trials:
        raise LedgerLacks(source.path, "no methods that are compared on the test split", "give the ledger of tune compare")
    several = _with_several_variants(trials)
    lines: dict[tuple[str, str], dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for trial in trials:
        name = f"{trial.method}, {_variant(trial)}" if trial.method in several else trial.method
        lines[trial.method, name][trial.train_images][trial.seed] = trial.score  # of two, the later counts
    return tuple(
        Line(name, method, {count: tuple(found[count].values()) for count in sorted(found)})
        for (method, name), found in lines.items()
    )


def _with_several_variants(trials: Sequence[Trial]) -> set[str]:
    """Return the methods that were always run in more than one way on the same images with the same seed."""
    variants = defaultdict(set)
    for trial in trials:
        variants[trial.method, trial.train_images, trial.seed].add(_variant(trial))
    single = {method for (method, _, _), found in variants.items() if len(found) == 1}
    return {trial.method for trial in trials} - single


def _variant(trial: Trial) -> str:
    return trial.variant or (trial.subset[0] if len(trial.subset) == 1 else f"{len(trial.subset)} blocks")


def cost_facts(source: Source) -> CostPoints:
    """Return accuracy against what serving costs, of all subsets whose folds were all run. Raises LedgerLacks."""
    scores = {subset: score for subset, score in source.scores.items() if score.complete}
    if not scores:
        raise LedgerLacks(source.path, "no subset of which all folds were run", "run tune profile")
    costs = source.contents.costs
    measured = scores.keys() <= costs.keys()
    macs = {s: costs[s].macs if measured else macs_from_first_tuned(source.contents, s) for s in scores}
    noted = last_noted(source)
    chosen = noted.selection.chosen.subset if noted else None
    front = pareto_front({subset: (macs[subset], score.worth) for subset, score in scores.items()})
    return CostPoints(source, scores, macs, measured, front, chosen)


def macs_from_first_tuned(contents: LedgerContents, subset: Subset) -> int:
    """Return the multiply-accumulates per image of the blocks from the first tuned one on."""
    tuned = [index for index, block in enumerate(contents.header.blocks) if block.name in subset]
    return sum(block.macs for block in contents.header.blocks[tuned[0] :]) if tuned else 0
