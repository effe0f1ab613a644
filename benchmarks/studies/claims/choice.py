"""What SubTuning chooses by a search that was done. Without torch, as tables ask it, too."""

from __future__ import annotations

from benchmarks.studies.claims.unit import Settings, Unit
from tuning.search.greedy import Selection, StopRule
from tuning.search.ledger import LedgerContents
from tuning.search.replay import replay, search_scores
from tuning.search.score import Objective


def search_of(unit: Unit, blocks: int) -> Unit:
    """Return the search that SubTuning takes its blocks from."""
    return Unit("search", unit.task, unit.images, unit.seed, blocks=blocks)


def chosen(contents: LedgerContents, settings: Settings, cost_weight: float = 0.0, epsilon: float | None = None) -> Selection:
    """Return what the greedy rule chooses by an unpacked ledger. cost_weight: accuracy that all of the "
    "backbone's MACs are worth."""
    most = max(len(subset) for subset in search_scores(contents))
    rule = StopRule(settings.gain if epsilon is None else epsilon, max_blocks=most)
    return replay(contents, "forward", rule, Objective(macs_weight=cost_weight))
