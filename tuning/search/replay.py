"""What a ledger answers without training, and without torch: other stopping rules and objectives, and the selections it notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuning.errors import BadOptions
from tuning.kinds.metric import ACCURACY, Metric
from tuning.search.greedy import Direction, GreedyStep, Preference, Selection, StopRule, select
from tuning.search.ledger import LedgerContents
from tuning.search.ranking import Ranking
from tuning.search.score import CostOf, Objective, Score, Subset, SubsetCost

_NAMED = 4  # blocks of a subset that a sentence names


class MissingScores(BadOptions):
    """A ledger was asked about subsets that were never evaluated."""

    def __init__(self, subsets: Sequence[Subset]) -> None:
        first = _in_words(subsets[0])
        more = f" and {len(subsets) - 1} more" if len(subsets) > 1 else ""
        super().__init__(
            f"The ledger does not say how {first}{more} scored; run tune greedy with these options, which goes on from it."
        )


class MissingCosts(BadOptions):
    """A ledger was asked to weigh costs that it does not hold."""

    def __init__(self, subset: Subset, what: str) -> None:
        super().__init__(
            f"The ledger does not say {what} {_in_words(subset)}; run tune greedy with these options, which goes on from it."
        )


@dataclass(frozen=True)
class Noted:
    """A selection that a ledger notes, and what it was asked for."""

    selection: Selection
    rule: StopRule
    objective: Objective


def replay(contents: LedgerContents, direction: Direction, rule: StopRule, objective: Objective) -> Selection:
    """Return the selection that a search would make, from its ledger alone.

    Raises MissingScores and MissingCosts where the ledger ends, BadOptions when nothing is within the latency budget.
    """
    scores, costs = search_scores(contents), contents.costs

    def cost(subset: Subset) -> SubsetCost:
        if subset not in costs:
            raise MissingCosts(subset, "what it costs to serve")
        if objective.latency_budget_ms is not None and costs[subset].latency_ms is None:
            raise MissingCosts(subset, "how long it takes to serve")
        return costs[subset]

    preference = make_preference(objective, cost, contents.header.metric)
    check_budget(objective, cost)

    def evaluate(subsets: Sequence[Subset]) -> Mapping[Subset, Score]:
        found = {subset: scores[subset] for subset in subsets if subset in scores}
        best = max((preference.value(s, score.worth) for s, score in found.items() if score.complete), default=float("-inf"))
        # What a race gave up could not win then; by another objective it might.
        open_ = [s for s in subsets if s not in found or (not found[s].complete and preference.value(s, found[s].bound) >= best)]
        if open_:
            raise MissingScores(open_)
        return found

    return select(direction, searched_blocks(contents), evaluate, rule, preference)


def make_preference(objective: Objective, cost: CostOf, metric: Metric = ACCURACY) -> Preference:
    """Return what the search needs to know of an objective."""
    if not objective.needs_cost:
        return Preference(words=metric.gain_words)
    return Preference(
        value=lambda subset, worth: objective.value(worth, cost(subset)),
        allowed=lambda subset: objective.allows(cost(subset)),
        cost=lambda subset: cost(subset).macs_share + cost(subset).bytes_share,
        words=metric.gain_words,
    )


def check_budget(objective: Objective, cost: CostOf) -> None:
    """Raise BadOptions when not even the head alone is within the latency budget."""
    budget = objective.latency_budget_ms
    if budget is not None and not objective.allows(cost(())):
        raise BadOptions(f"Even the head alone adds {cost(()).latency_ms:.2f} ms, more than the budget of {budget:g} ms.")


def search_scores(contents: LedgerContents) -> dict[Subset, Score]:
    """Return the scores by subset, of the method that was searched: subtuning, or its Siamese form."""
    return contents.scores("siamese subtuning" if contents.header.training.get("siamese") else "subtuning")


def searched_blocks(contents: LedgerContents) -> Subset:
    """Return the candidates of the search in forward order: the blocks of any subset that was evaluated, or only ranked."""
    ranked = {block for proxy in contents.proxies if proxy.name == "epoch" for block in proxy.subset}
    noted = {block for note in contents.notes for block in note.get("selection", {}).get("candidates", ())}
    used = {block for subset in search_scores(contents) for block in subset} | ranked | noted
    return tuple(block.name for block in contents.header.blocks if block.name in used)


def describe_selection(
    selection: Selection, rule: StopRule, objective: Objective, ranking: Ranking | None = None, blocks: Subset = ()
) -> dict[str, object]:
    """Return a selection as plain JSON. ranking, blocks: by which some of the candidates `blocks` were not trained."""
    ranked = {} if ranking is None else {"ranking": asdict(ranking), "candidates": list(blocks)}
    return {
        "selection": {
            **ranked,
            "direction": selection.direction,
            "rule": asdict(rule),
            "objective": asdict(objective),
            "chosen": list(selection.chosen.subset),
            "why": selection.why,
            "steps": [
                {
                    "subset": list(s.subset),
                    "block": s.block,
                    s.score.metric.name: s.score.mean,
                    "deviation": s.score.deviation,
                    "value": s.value,
                }
                for s in selection.steps
            ],
        }
    }


def noted_selections(contents: LedgerContents) -> tuple[Noted, ...]:
    """Return the selections that the ledger notes, the oldest first. Raises BadOptions for one that it does not bear out."""
    scores = search_scores(contents)
    try:
        return tuple(_noted(note["selection"], scores) for note in contents.notes if "selection" in note)
    except (KeyError, TypeError) as error:
        raise BadOptions(
            f"A selection that the ledger notes cannot be read ({error}); it is damaged, or of another version."
        ) from error


def _noted(note: Mapping[str, Any], scores: Mapping[Subset, Score]) -> Noted:
    steps = tuple(_step(step, scores) for step in note["steps"])
    chosen = {step.subset: step for step in steps}[tuple(note["chosen"])]
    selection = Selection(note["direction"], steps, chosen, note["why"])
    return Noted(selection, StopRule(**note["rule"]), Objective(**note["objective"]))


def _step(step: Mapping[str, Any], scores: Mapping[Subset, Score]) -> GreedyStep:
    subset = tuple(step["subset"])
    return GreedyStep(subset, scores[subset], step["value"], step["block"])


def _in_words(subset: Subset) -> str:
    if len(subset) > _NAMED:
        return f"the {len(subset)} blocks {', '.join(subset[:_NAMED])}, ..."
    return ", ".join(subset) or "the head alone"
