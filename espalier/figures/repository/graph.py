"""The nodes and links of the picture, in columns from the inputs to the tasks. Pure data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from contract.repository import Segment
from espalier.figures.repository.flow import Flow, FlowRun, Stream

INPUT, RUN, OUTPUT, _WAY = "input", "run", "output", "way"


@dataclass(frozen=True)
class _Node:
    """What takes room in a column. A WAY keeps room for a link that passes the column.

    name: of the input, segment or output. run: only where the kind is RUN. ports: streams that are stacked in it.
    """

    kind: str
    column: int
    name: str
    run: FlowRun | None = None

    @property
    def ports(self) -> int:
        """Return the number of streams."""
        return len(self.run.streams) if self.run else 1


@dataclass(frozen=True)
class Port:
    """One stream of a node, both by their index."""

    node: int
    stream: int = 0


@dataclass(frozen=True)
class _Link:
    """A tensor on its way from where it is made to where it is taken, and the tasks that it is for.

    ports: the start, one port for each column that it passes, and the end: neighbours are in neighbouring columns.
    """

    ports: tuple[Port, ...]
    tasks: frozenset[str]


@dataclass(frozen=True)
class Graph:
    """Nodes and links; a link names nodes by their index."""

    nodes: tuple[_Node, ...]
    links: tuple[_Link, ...]

    @property
    def columns(self) -> list[list[int]]:
        """Return the nodes of each column from left to right, in the order of `nodes`."""
        columns: list[list[int]] = [[] for _ in range(1 + max(node.column for node in self.nodes))]
        for index, node in enumerate(self.nodes):
            columns[node.column].append(index)
        return columns


def make_graph(flow: Flow, segments: Mapping[str, Segment], owners: Mapping[str, str]) -> Graph:
    """Return the graph of `flow`. `owners`: the task of each output."""
    columns = _columns(flow, segments)
    last = 1 + max(columns, default=0)
    nodes = [_Node(INPUT, 0, name) for name in flow.inputs]
    made = {name: Port(index) for index, name in enumerate(flow.inputs)}
    taken: list[tuple[str, Port, frozenset[str]]] = []
    for run, column in zip(flow.runs, columns, strict=True):
        for stream, what in enumerate(run.streams):
            port = Port(len(nodes), stream)
            made.update(dict.fromkeys(what.outputs, port))
            taken += [(tensor, port, what.tasks) for tensor in dict.fromkeys(what.inputs)]
        nodes.append(_Node(RUN, column, run.segment, run))
    for output, tensor in flow.outputs.items():
        taken.append((tensor, Port(len(nodes)), frozenset([owners[output]])))
        nodes.append(_Node(OUTPUT, last, output))
    links = [_route(nodes, made[tensor], end, tasks) for tensor, end, tasks in taken]
    return Graph(tuple(nodes), tuple(links))


def _route(nodes: list[_Node], start: Port, end: Port, tasks: frozenset[str]) -> _Link:
    """Return the link from `start` to `end`; `nodes` gets a WAY in every column between them."""
    between = range(nodes[start.node].column + 1, nodes[end.node].column)
    ways = [_Node(_WAY, column, nodes[end.node].name) for column in between]
    ports = tuple(Port(len(nodes) + index) for index in range(len(ways)))
    nodes.extend(ways)
    return _Link((start, *ports, end), tasks)


def _columns(flow: Flow, segments: Mapping[str, Segment]) -> list[int]:
    """Return the column of each run: right of all that it takes, and heads of one block beneath each other at the end."""
    column_of = dict.fromkeys(flow.inputs, 0)
    columns = []
    for run in flow.runs:
        column = 1 + max(column_of[tensor] for stream in run.streams for tensor in stream.inputs)
        column_of.update({tensor: column for stream in run.streams for tensor in stream.outputs})
        columns.append(column)
    last, takers = max(columns, default=0), _takers(flow)
    for index, run in enumerate(flow.runs):
        first, final = segments[run.segment].blocks
        if first == final and not any(takers[tensor] for stream in run.streams for tensor in stream.outputs):
            columns[index] = last
    return columns


def _takers(flow: Flow) -> dict[str, list[Stream]]:
    takers: dict[str, list[Stream]] = defaultdict(list)
    for run in flow.runs:
        for stream in run.streams:
            for tensor in stream.inputs:
                takers[tensor].append(stream)
    return takers
