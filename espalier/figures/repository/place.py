"""Where the nodes of each column are, from top to bottom: links as level as they can be without anything touching."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from espalier.figures.repository.graph import Graph
from espalier.figures.repository.order import Order
from espalier.figures.repository.sizes import FigureSizes

_SWEEPS = 24


@dataclass(frozen=True)
class Room:
    """What a node needs above and below its upper edge (the node itself, its label, and a margin)."""

    above: float
    below: float


@dataclass(frozen=True)
class _Pull:
    """A link that would be level if the node's upper edge were at `offset` from that of `other`."""

    other: int
    offset: float
    weight: float


def find_places(graph: Graph, order: Order, sizes: FigureSizes, rooms: Sequence[Room]) -> tuple[list[float], float]:
    """Return the upper edge of every node, and the height that all need."""
    height = max(sum(rooms[node].above + rooms[node].below for node in column) for column in order.columns)
    pulls = _pulls(graph, sizes)
    upper = [0.0] * len(graph.nodes)
    for column in order.columns:
        free = height - sum(rooms[node].above + rooms[node].below for node in column)
        below = free / 2
        for node in column:
            upper[node] = below + rooms[node].above
            below = upper[node] + rooms[node].below
    for sweep in range(_SWEEPS):
        for column in order.columns if sweep % 2 else order.columns[::-1]:
            wanted = [_wanted(pulls[node], upper, upper[node]) for node in column]
            weights = [sum(pull.weight for pull in pulls[node]) or 1.0 for node in column]
            for node, place in zip(column, spread(wanted, weights, [rooms[node] for node in column], height), strict=True):
                upper[node] = place
    return upper, height


def spread(wanted: Sequence[float], weights: Sequence[float], rooms: Sequence[Room], height: float) -> list[float]:
    """Return places as near to `wanted` as can be (weighted least squares) in this order, where no two rooms overlap within `height`.

    With the rooms above it taken off each wish, what is sought is the isotonic regression of the wishes: neighbours that are in the
    wrong order take their mean, again and again (pool adjacent violators; Ayer et al., 1955).
    """
    taken, before = [], 0.0
    for room in rooms:
        taken.append(before + room.above)
        before += room.above + room.below
    pools: list[tuple[float, float, int]] = []
    for wish, weight, offset in zip(wanted, weights, taken, strict=True):
        value, total, count = wish - offset, weight, 1
        while pools and pools[-1][0] > value:
            other, other_total, other_count = pools.pop()
            value = (value * total + other * other_total) / (total + other_total)
            total, count = total + other_total, count + other_count
        pools.append((value, total, count))
    free = max(height - before, 0.0)
    values = [min(max(value, 0.0), free) for value, _, count in pools for _ in range(count)]
    return [value + offset for value, offset in zip(values, taken, strict=True)]


def _wanted(pulls: Sequence[_Pull], upper: Sequence[float], now: float) -> float:
    total = sum(pull.weight for pull in pulls)
    return sum(pull.weight * (upper[pull.other] + pull.offset) for pull in pulls) / total if total else now


def _pulls(graph: Graph, sizes: FigureSizes) -> dict[int, list[_Pull]]:
    pulls: dict[int, list[_Pull]] = defaultdict(list)
    for link, leaving, attached in zip(graph.links, sizes.leaving, sizes.attached, strict=True):
        before = leaving
        for index, (start, end) in enumerate(pairwise(link.ports)):
            after = attached[index]
            weight = min(before[1] - before[0], after[1] - after[0])
            offset = (before[0] + before[1]) / 2 - (after[0] + after[1]) / 2
            pulls[end.node].append(_Pull(start.node, offset, weight))
            pulls[start.node].append(_Pull(end.node, -offset, weight))
            before = after
    return pulls
