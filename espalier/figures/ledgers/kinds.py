"""The kinds of charts, and which of them suits a ledger."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from espalier.figures.ledgers.facts import has_all_pairs, last_noted
from espalier.figures.ledgers.source import Source


class Kind(StrEnum):
    """What a chart shows."""

    auto = "auto"
    profile = "profile"
    pairs = "pairs"
    path = "path"
    samples = "samples"
    cost = "cost"


def choose_kind(sources: Sequence[Source]) -> Kind:
    """Return the kind that shows most of what the ledgers hold.

    Several: profiles. A comparison: samples. A search: the path if it selected, all pairs, the profile if it went no further.
    """
    first = sources[0]
    if len(sources) > 1:
        return Kind.profile
    if not first.is_search:
        return Kind.samples
    if last_noted(first) is not None:
        return Kind.path
    if has_all_pairs(first):
        return Kind.pairs
    larger = any(len(subset) > 1 for subset in first.scores)
    return Kind.cost if larger else Kind.profile
