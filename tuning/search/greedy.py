"""Greedy selection of the blocks to tune (Algorithm 1 of arXiv 2302.06354), and the ways it is run. Pure: scores are passed in.

Forward starts from the linear probe and adds the block that helps most. Backward starts from all blocks and removes the one that
hurts least. Both meanings that the field gives to epsilon are here:

- "gain": a block must be worth at least epsilon. Forward stops when the best addition gains less; backward, when the best removal
  costs epsilon or more.
- "drop": the answer is the smallest subset on the way that is at most epsilon worse than the best on the way (as in the authors' code).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tuning.kinds.metric import ACCURACY
from tuning.search.score import Evaluate, Score, Subset

Direction = Literal["forward", "backward", "both"]
_Meaning = Literal["gain", "drop"]


@dataclass(frozen=True)
class StopRule:
    """epsilon: in units of the metric (of accuracy 0.005 is half a point); a gain of exactly 0 is none. meaning: see the module.

    max_blocks: the most blocks of an answer.
    """

    epsilon: float = 0.005
    meaning: _Meaning = "gain"
    max_blocks: int | None = None


@dataclass(frozen=True)
class Preference:
    """What the search knows of subsets beside their scores. value: what is maximised, of a score's worth. allowed: may it be chosen?
    cost: breaks ties. words: differences of values, for people.
    """

    value: Callable[[Subset, float], float] = lambda subset, worth: worth
    allowed: Callable[[Subset], bool] = lambda subset: True
    cost: Callable[[Subset], float] = lambda subset: 0.0
    words: Callable[[float], str] = ACCURACY.gain_words


@dataclass(frozen=True)
class GreedyStep:
    """A subset that the search stood on. block: what was added or removed to get there. value: of the score, by the preference."""

    subset: Subset
    score: Score
    value: float
    block: str | None = None


@dataclass(frozen=True)
class Selection:
    """The way of a search and its answer. why: it went no further, for people."""

    direction: str
    steps: tuple[GreedyStep, ...]
    chosen: GreedyStep
    why: str


def select(
    direction: Direction, blocks: Sequence[str], evaluate: Evaluate, rule: StopRule, preference: Preference | None = None
) -> Selection:
    """Return the selection among `blocks` (in forward order). Both: each from its own end, the better answer, the smaller on a tie."""
    preference = preference or Preference()
    if direction == "forward":
        return _forward(tuple(blocks), evaluate, rule, preference)
    if direction == "backward":
        return _backward(tuple(blocks), evaluate, rule, preference)
    ways = [select(way, blocks, evaluate, rule, preference) for way in ("forward", "backward")]
    return max(ways, key=lambda way: (_fits(way.chosen, rule, preference), way.chosen.value, -len(way.chosen.subset)))


def candidates(subset: Subset, blocks: Sequence[str], direction: str) -> list[tuple[str, Subset]]:
    """Return what a step from `subset` chooses from: (the block that is added or removed, the subset that this leads to)."""
    if direction == "forward":
        return [(name, tuple(b for b in blocks if b in subset or b == name)) for name in blocks if name not in subset]
    return [(name, tuple(b for b in subset if b != name)) for name in subset]


def _forward(blocks: Subset, evaluate: Evaluate, rule: StopRule, preference: Preference) -> Selection:
    steps = [_start((), evaluate, preference)]
    limit = len(blocks) if rule.max_blocks is None else rule.max_blocks
    while True:
        here = steps[-1]
        if len(here.subset) >= limit:
            return _answer("forward", steps, rule, preference, f"{len(here.subset)} blocks are the most allowed")
        others = candidates(here.subset, blocks, "forward")
        step = _best({subset: b for b, subset in others if preference.allowed(subset)}, evaluate, preference)
        if step is None:
            return _answer("forward", steps, rule, preference, "every other subset is over the budget")
        gain = step.value - here.value
        if rule.meaning == "gain" and (gain < rule.epsilon or gain == rule.epsilon == 0):
            return _answer("forward", steps, rule, preference, f"the best addition, {step.block}, gains {preference.words(gain)}")
        if rule.meaning == "drop" and step.value < max(s.value for s in steps) - rule.epsilon:
            return _answer("forward", steps, rule, preference, f"adding {step.block} ends more than epsilon below the best")
        steps.append(step)


def _backward(blocks: Subset, evaluate: Evaluate, rule: StopRule, preference: Preference) -> Selection:
    steps = [_start(blocks, evaluate, preference)]
    limit = len(blocks) if rule.max_blocks is None else rule.max_blocks
    while True:
        here = steps[-1]
        if not here.subset:
            return _answer("backward", steps, rule, preference, "no block is left to remove")
        others = {subset: removed for removed, subset in candidates(here.subset, blocks, "backward")}
        # What is over a budget may lead to what is not: if no candidate is within it, the best of the others is gone through.
        within = {subset: b for subset, b in others.items() if preference.allowed(subset)}
        step = _best(within or others, evaluate, preference)
        assert step is not None
        loss = here.value - step.value
        must = len(here.subset) > limit or not preference.allowed(here.subset)
        if not must and rule.meaning == "gain" and loss >= rule.epsilon and loss > 0:
            why = f"the best removal, {step.block}, costs {preference.words(loss).removeprefix('+')}"
            return _answer("backward", steps, rule, preference, why)
        if not must and rule.meaning == "drop" and step.value < max(s.value for s in steps) - rule.epsilon:
            return _answer("backward", steps, rule, preference, f"removing {step.block} ends more than epsilon below the best")
        steps.append(step)


def _start(subset: Subset, evaluate: Evaluate, preference: Preference) -> GreedyStep:
    score = evaluate([subset])[subset]
    return GreedyStep(subset, score, preference.value(subset, score.worth))


def _best(candidates: Mapping[Subset, str], evaluate: Evaluate, preference: Preference) -> GreedyStep | None:
    """Return the step to the best candidate: the most value, then the least cost, then the first in order. None of none.

    Candidates of which not every fold was run were given up by the evaluation because they cannot be the best.
    """
    if not candidates:
        return None
    complete = {subset: score for subset, score in evaluate(list(candidates)).items() if score.complete}
    values = {subset: preference.value(subset, score.worth) for subset, score in complete.items()}
    best = min(values, key=lambda subset: (-values[subset], preference.cost(subset), list(candidates).index(subset)))
    return GreedyStep(best, complete[best], values[best], candidates[best])


def _answer(direction: str, steps: Sequence[GreedyStep], rule: StopRule, preference: Preference, why: str) -> Selection:
    fitting = [step for step in steps if _fits(step, rule, preference)] or list(steps)
    if rule.meaning == "gain":
        chosen = fitting[-1]
    else:
        best = max(step.value for step in fitting)
        chosen = min((s for s in fitting if s.value >= best - rule.epsilon), key=lambda s: (len(s.subset), -s.value))
    return Selection(direction, tuple(steps), chosen, why)


def _fits(step: GreedyStep, rule: StopRule, preference: Preference) -> bool:
    return preference.allowed(step.subset) and (rule.max_blocks is None or len(step.subset) <= rule.max_blocks)
