"""How thick everything is: runs as their cost, links between the thickness of what they leave and of what they enter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contract.repository import Segment
from espalier.figures.repository.flow import FlowRun
from espalier.figures.repository.graph import INPUT, OUTPUT, RUN, Graph, Port
from espalier.figures.repository.order import Order
from espalier.figures.repository.text import WEIGHTS

MIN_THICKNESS = 3.0
ROW_HEIGHT = 23.0
_OUTPUT_THICKNESS = 9.0  # of a link to a task's name at most
_MAX_THICKNESS = 200.0  # of the costliest run, where there are few tasks
_MAX_COLUMN = 360.0  # of all runs of a column together, where there are few tasks


@dataclass(frozen=True)
class FigureSizes:
    """Thickness of every node, and per link where it is attached, from the node's upper edge: (upper, lower) at each of its ports.

    scale: points per unit of cost. What would be thinner than MIN_THICKNESS is drawn as thick as that.
    """

    scale: float
    thickness: tuple[float, ...]
    attached: tuple[tuple[tuple[float, float], ...], ...]
    leaving: tuple[tuple[float, float], ...]


def run_cost(run: FlowRun, segments: Mapping[str, Segment], unit: str) -> int:
    """Return the cost of one row: MACs on every stream, or the bytes of the weights, of which there is one copy for all streams."""
    segment = segments[run.segment]
    return segment.weight_bytes if unit == WEIGHTS else segment.macs * len(run.streams)


def find_sizes(graph: Graph, order: Order, costs: Sequence[float]) -> FigureSizes:
    """Return the sizes for the cost of every node, which is 0 for all but runs."""
    scale = _scale(graph, costs)
    heights = [
        max(MIN_THICKNESS, cost * scale) if node.kind == RUN else 0.0 for node, cost in zip(graph.nodes, costs, strict=True)
    ]
    entering = _entering(graph, heights)
    for link, thickness in zip(graph.links, entering, strict=True):
        start = link.ports[0].node
        if graph.nodes[start].kind == INPUT:
            heights[start] += thickness
        if graph.nodes[link.ports[-1].node].kind == OUTPUT:
            heights[link.ports[-1].node] = thickness
    leaving = _leaving(graph, heights, entering)
    for link, first, last in zip(graph.links, leaving, entering, strict=True):
        for port in link.ports[1:-1]:
            heights[port.node] = min(first, last)
    return _attach(graph, order, scale, heights, leaving, entering)


def _scale(graph: Graph, costs: Sequence[float]) -> float:
    rows = ROW_HEIGHT * sum(node.kind == OUTPUT for node in graph.nodes)
    columns = [sum(costs[node] for node in column) for column in graph.columns]
    highest, fullest = max(costs, default=0), max(columns, default=0)
    if not highest:
        return 0.0
    return min(max(_MAX_THICKNESS, 0.35 * rows) / highest, max(_MAX_COLUMN, 0.6 * rows) / fullest)


def _entering(graph: Graph, heights: Sequence[float]) -> list[float]:
    """Return how thick each link is where it ends: its part of the stream that it enters."""
    sharing: dict[Port, int] = defaultdict(int)
    for link in graph.links:
        sharing[link.ports[-1]] += 1

    def stream(port: Port) -> float:
        return heights[port.node] / graph.nodes[port.node].ports

    return [
        min(_OUTPUT_THICKNESS, stream(link.ports[0]) or _OUTPUT_THICKNESS)
        if graph.nodes[link.ports[-1].node].kind == OUTPUT
        else stream(link.ports[-1]) / sharing[link.ports[-1]]
        for link in graph.links
    ]


def _leaving(graph: Graph, heights: Sequence[float], entering: Sequence[float]) -> list[float]:
    """Return how thick each link is where it starts: the stream that it leaves is divided as the links are thick at their ends."""
    wanted: dict[Port, float] = defaultdict(float)
    for link, thickness in zip(graph.links, entering, strict=True):
        wanted[link.ports[0]] += thickness
    return [
        heights[link.ports[0].node] / graph.nodes[link.ports[0].node].ports * thickness / wanted[link.ports[0]]
        for link, thickness in zip(graph.links, entering, strict=True)
    ]


def _attach(
    graph: Graph, order: Order, scale: float, heights: list[float], leaving: Sequence[float], entering: Sequence[float]
) -> FigureSizes:
    """Put the links at each port beneath each other, in the order of where they go or come from."""
    positions = order.positions()
    starts = _stack(graph, order, heights, [(link.ports[0], positions[link.ports[1]]) for link in graph.links], leaving)
    ends = _stack(graph, order, heights, [(link.ports[-1], positions[link.ports[-2]]) for link in graph.links], entering)
    attached = []
    for index, link in enumerate(graph.links):
        ways = [(0.0, heights[port.node]) for port in link.ports[1:-1]]
        attached.append((*ways, ends[index]))
    return FigureSizes(scale, tuple(heights), tuple(attached), tuple(starts))


def _stack(
    graph: Graph, order: Order, heights: Sequence[float], ends: Sequence[tuple[Port, float]], thickness: Sequence[float]
) -> list[tuple[float, float]]:
    filled: dict[Port, float] = {}
    places: list[tuple[float, float]] = [(0.0, 0.0)] * len(ends)
    for index in sorted(range(len(ends)), key=lambda index: ends[index][1]):
        port = ends[index][0]
        stream = heights[port.node] / graph.nodes[port.node].ports
        upper = filled.get(port, stream * order.streams[port.node].index(port.stream))
        places[index] = (upper, upper + thickness[index])
        filled[port] = upper + thickness[index]
    return places
