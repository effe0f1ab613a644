"""Greedy's k and epsilon, and what weighing costs changes: told from the searches, with what the choice reaches on the test pictures."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.studies.claims.choice import chosen
from benchmarks.studies.claims.plan import IMAGES, MAIN_TASKS
from benchmarks.studies.claims.statistics import compare_pairs, spread
from benchmarks.studies.claims.tables.source import Searched, Source, difference_words, mean_words, table
from tuning.search.greedy import GreedyStep, StopRule
from tuning.search.replay import replay, search_scores
from tuning.search.score import Objective

EPSILONS = (0.0, 0.0025, 0.005, 0.01, 0.02)


def section(source: Source) -> str:
    """Return the section."""
    searches = [one for task in MAIN_TASKS for one in source.searched(task, IMAGES)]
    head = ["meaning", "epsilon", "blocks", "cross-validated, %", "tested, %"]
    weighed = ["cost weight", "blocks", "added MACs", "cross-validated, %", "tested, %", "tested against weight 0, points"]
    return (
        f"## Greedy: epsilon and costs\nOver {len(searches)} searches with {IMAGES} pictures. Deviations "
        "are over tasks and seeds.\n\n"
        f"{table(head, _epsilons(searches))}\n{table(weighed, _weighed(source, searches))}"
    )


def _epsilons(searches: Sequence[Searched]) -> list[list[str]]:
    rows = []
    for meaning in ("gain", "drop"):
        for epsilon in EPSILONS:
            rule = StopRule(epsilon, meaning, max(map(_most, searches), default=None))
            found = [replay(one.contents, "forward", rule, Objective()).chosen for one in searches]
            if found:
                rows.append([meaning, f"{epsilon:g}", *_words(searches, found)])
    return rows


def _weighed(source: Source, searches: Sequence[Searched]) -> list[list[str]]:
    priced = [one for one in searches if one.contents.costs]
    if not priced:
        return []
    rows = []
    plain = [chosen(one.contents, source.settings).chosen for one in priced]
    for weight, found in (
        (0.0, plain),
        (
            source.settings.cost_weight,
            [chosen(one.contents, source.settings, source.settings.cost_weight).chosen for one in priced],
        ),
    ):
        shares = [one.contents.costs[step.subset].macs_share for one, step in zip(priced, found, strict=True)]
        pairs = [(a, b) for a, b in zip(_tested(priced, found), _tested(priced, plain), strict=True)]
        difference = difference_words(compare_pairs([a for a, _ in pairs], [b for _, b in pairs])) if weight else ""
        blocks, *accuracies = _words(priced, found)
        rows.append([f"{weight:g}", blocks, f"{100 * spread(shares)[0]:.0f} %", *accuracies, difference])
    return rows


def _words(searches: Sequence[Searched], found: Sequence[GreedyStep]) -> list[str]:
    blocks = spread([float(len(step.subset)) for step in found])
    return [
        f"{blocks[0]:.1f} ± {blocks[1]:.1f}",
        mean_words([step.score.mean for step in found]),
        mean_words(_tested(searches, found)),
    ]


def _tested(searches: Sequence[Searched], found: Sequence[GreedyStep]) -> list[float]:
    return [one.finals[step.subset] for one, step in zip(searches, found, strict=True)]


def _most(searched: Searched) -> int:
    return max(len(subset) for subset in search_scores(searched.contents))
