"""How often a ranked search chooses what the exhaustive one chooses, and what it takes: told from the ledgers of exhaustive searches."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.studies.claims.statistics import spread
from benchmarks.studies.claims.tables.source import Searched, Source, table
from tuning.errors import BadOptions
from tuning.search.greedy import StopRule
from tuning.search.rank_replay import Effort, RankedReplay, replay_ranked
from tuning.search.ranking import RANKS, Halving, Ranking
from tuning.search.replay import MissingScores, search_scores
from tuning.search.score import Objective

_HALVINGS: tuple[Halving, ...] = ("none", "folds", "steps", "both")
_SHARES = (0.5, 0.25)


@dataclass(frozen=True)
class Agreement:
    """Of one ranking over searches. told: of them, to their end; the others went where the exhaustive search has not been.

    first, whole: share of the same first block, and of the same choice; what went elsewhere is not the same.
    lost: mean accuracy by cross-validation that the choice has less; of what went elsewhere, that of its last subset that is known.
    trainings, epochs, macs, processor: how many times less the told ones take; of the processor's seconds where they are known of
    all, else of the clock's. NaN where none was told.
    """

    ranking: Ranking
    searches: int
    told: int
    first: float
    whole: float
    lost: float
    trainings: float
    epochs: float
    macs: float
    processor: float


def section(source: Source) -> str:
    """Return the section."""
    found = list(agreements([one for one in source.searches if one.unit.blocks > 1], source.settings.gain))
    agreed = ["told to the end", "same first block", "same choice", "lost, points"]
    head = ["rank", "kept", "halving", "searches", *agreed, *_FEWER]
    return (
        "## Ranked searches\nEach rank is replayed on the ledgers of exhaustive searches, by the code "
        "that ranks a search. Lost is accuracy by "
        "cross-validation. A ranked search that begins with another block goes where the ledger has not been: it counts as another choice, "
        "and is left out of the last columns, which are how many times less the whole search takes, its cheap measurements counted.\n\n"
        f"{table(head, map(_row, found))}"
    )


_FEWER = ("trainings", "epochs", "MACs", "processor seconds")


def agreements(searches: Sequence[Searched], epsilon: float) -> Iterator[Agreement]:
    """Yield what holds of each ranking. epsilon: of the greedy rule."""
    exhaustive = [replay_ranked(one.contents, None, "forward", _rule(one, epsilon), Objective()) for one in searches]
    for name in RANKS if searches else ():
        for share in _SHARES:
            for halving in _HALVINGS:
                yield _agreement(Ranking(name, share, halving), searches, exhaustive, epsilon)


def _rule(searched: Searched, epsilon: float) -> StopRule:
    return StopRule(epsilon, max_blocks=max(len(subset) for subset in search_scores(searched.contents)))


def _replay(searched: Searched, ranking: Ranking, rule: StopRule) -> tuple[RankedReplay, bool]:
    """Return the ranked search, and whether it was told to its end: else to fewer blocks, as far as the ledger goes."""
    assert rule.max_blocks is not None
    for most in range(rule.max_blocks, 0, -1):
        try:
            found = replay_ranked(searched.contents, ranking, "forward", replace(rule, max_blocks=most), Objective())
        except MissingScores:
            continue
        return found, most == rule.max_blocks
    raise BadOptions(f"The ledger of {searched.unit.words} does not have the first step of a ranked search.")


def _agreement(ranking: Ranking, searches: Sequence[Searched], exhaustive: Sequence[RankedReplay], epsilon: float) -> Agreement:
    replays = [_replay(one, ranking, _rule(one, epsilon)) for one in searches]
    lost, whole = [], []
    for one, full, (ranked, told) in zip(searches, exhaustive, replays, strict=True):
        scores = search_scores(one.contents)
        lost.append(scores[full.selection.chosen.subset].mean - scores[ranked.selection.chosen.subset].mean)
        whole.append(told and full.selection.chosen.subset == ranked.selection.chosen.subset)
    pairs = [(full.effort, ranked.effort) for full, (ranked, told) in zip(exhaustive, replays, strict=True) if told]
    fewer = _fewer(_sum(full for full, _ in pairs), _sum(ranked for _, ranked in pairs)) if pairs else (math.nan,) * 4
    first = statistics.fmean(_first(one, None) == _first(one, ranking) for one in searches)
    return Agreement(ranking, len(searches), len(pairs), first, statistics.fmean(whole), spread(lost)[0], *fewer)


def _fewer(before: Effort, after: Effort) -> tuple[float, float, float, float]:
    known = before.processor_s is not None and after.processor_s is not None
    clocks = (before.processor_s, after.processor_s) if known else (before.seconds, after.seconds)
    return (
        before.trainings / max(after.trainings, 1),
        before.epochs / max(after.epochs, 1),
        before.macs / max(after.macs, 1),
        float(clocks[0] or 0.0) / max(float(clocks[1] or 0.0), 1e-9),
    )


def _first(searched: Searched, ranking: Ranking | None) -> str | None:
    """Return the block that is best in the first step, whether it is worth taking or not."""
    return replay_ranked(searched.contents, ranking, "forward", StopRule(-1.0, max_blocks=1), Objective()).selection.chosen.block


def _sum(efforts: Iterator[Effort]) -> Effort:
    known = list(efforts)
    processor = [effort.processor_s for effort in known if effort.processor_s is not None]
    return Effort(
        sum(effort.trainings for effort in known),
        sum(effort.epochs for effort in known),
        sum(effort.macs for effort in known),
        sum(effort.seconds for effort in known),
        sum(processor) if len(processor) == len(known) else None,
    )


def _row(one: Agreement) -> list[str]:
    agreed = [str(one.told), f"{100 * one.first:.0f} %", f"{100 * one.whole:.0f} %", f"{100 * one.lost:.2f}"]
    fewer = [f"{number:.1f}x" for number in (one.trainings, one.epochs, one.macs, one.processor)]
    ranking = one.ranking
    return [ranking.rank, f"{ranking.keep:g}", ranking.halving, str(one.searches), *agreed, *fewer]
