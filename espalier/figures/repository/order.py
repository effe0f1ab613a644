"""The order of the nodes within the columns, with few crossings of links.

The layered drawing of Sugiyama, Tagawa and Toda (1981): a start from a walk over the tree, which alone has no crossing where nothing
merges; then sweeps that order each column by the mean position of its neighbours, of which the best is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import fmean

from espalier.figures.repository.graph import Graph, Port

_SWEEPS = 8

_Hop = tuple[Port, Port]


@dataclass(frozen=True)
class Order:
    """The nodes of each column from top to bottom, and the streams of each node from top to bottom."""

    columns: tuple[tuple[int, ...], ...]
    streams: Mapping[int, tuple[int, ...]]

    def positions(self) -> dict[Port, float]:
        """Return where each port is in its column: the number of its node, and a fraction for its stream."""
        return {
            Port(node, stream): place + (rank + 0.5) / len(self.streams[node])
            for column in self.columns
            for place, node in enumerate(column)
            for rank, stream in enumerate(self.streams[node])
        }


def find_order(graph: Graph) -> Order:
    """Return an order with few crossings; the same for the same graph."""
    best = _with_streams(graph, _walked(graph))
    fewest = count_crossings(graph, best)
    order = best
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        order = _with_streams(graph, _swept(graph, order, forward=sweep % 2 == 1))
        crossings = count_crossings(graph, order)
        if crossings < fewest:
            best, fewest = order, crossings
    return best


def count_crossings(graph: Graph, order: Order) -> int:
    """Return how many pairs of links cross between neighbouring columns."""
    positions = order.positions()
    by_column: dict[int, list[_Hop]] = defaultdict(list)
    for start, end in _hops(graph):
        by_column[graph.nodes[start.node].column].append((start, end))
    return sum(
        (positions[one[0]] - positions[two[0]]) * (positions[one[1]] - positions[two[1]]) < 0
        for pairs in by_column.values()
        for one, two in combinations(pairs, 2)
    )


def _hops(graph: Graph) -> Iterator[_Hop]:
    """Yield the parts of all links, each from one column to the next."""
    for link in graph.links:
        yield from pairwise(link.ports)


def _walked(graph: Graph) -> list[list[int]]:
    """Return columns in the order of a walk from the inputs on, what goes on longest first: the trunk runs on top."""
    following: dict[int, list[int]] = defaultdict(list)
    for start, end in _hops(graph):
        following[start.node].append(end.node)
    depth: dict[int, int] = {}
    for node in sorted(range(len(graph.nodes)), key=lambda node: -graph.nodes[node].column):
        depth[node] = sum(depth[end] for end in following[node]) + (graph.nodes[node].kind != "way")
    columns: list[list[int]] = [[] for _ in graph.columns]
    seen: set[int] = set()
    waiting = graph.columns[0][::-1]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            columns[graph.nodes[node].column].append(node)
            branches = sorted(dict.fromkeys(following[node]), key=lambda node: -depth[node])
            waiting.extend(reversed(branches))
    return columns


def _swept(graph: Graph, order: Order, forward: bool) -> list[list[int]]:
    """Return columns where each node is moved to the mean position of its neighbours on the side that the sweep comes from."""
    positions = order.positions()
    neighbours: dict[int, list[tuple[Port, Port]]] = defaultdict(list)
    for start, end in _hops(graph):
        here, there = (end, start) if forward else (start, end)
        neighbours[here.node].append((here, there))
    columns = [list(column) for column in order.columns]
    for column in columns if forward else reversed(columns):
        wanted = {
            node: fmean(positions[there] for _, there in neighbours[node]) if neighbours[node] else float(place)
            for place, node in enumerate(column)
        }
        column.sort(key=lambda node: wanted[node])
        for place, node in enumerate(column):
            count = graph.nodes[node].ports
            positions.update(
                {Port(node, stream): place + (rank + 0.5) / count for rank, stream in enumerate(order.streams[node])}
            )
    return columns


def _with_streams(graph: Graph, columns: Sequence[Sequence[int]]) -> Order:
    """Return the order with the streams of every node sorted by where they come from."""
    sources: dict[Port, list[Port]] = defaultdict(list)
    for start, end in _hops(graph):
        sources[end].append(start)
    positions: dict[Port, float] = {}
    streams: dict[int, tuple[int, ...]] = {}
    for column in columns:
        for place, node in enumerate(column):
            ports = [Port(node, stream) for stream in range(graph.nodes[node].ports)]
            came_from = {port: fmean([positions[source] for source in sources[port]] or [0.0]) for port in ports}
            ports.sort(key=lambda port: came_from[port])
            streams[node] = tuple(port.stream for port in ports)
            positions.update({port: place + (rank + 0.5) / len(ports) for rank, port in enumerate(ports)})
    return Order(tuple(map(tuple, columns)), streams)
