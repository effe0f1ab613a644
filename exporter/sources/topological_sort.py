"""What feeds what in an ONNX graph: nothing from nowhere, no cycles, and an order in which it can be computed."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import onnx


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Bring the nodes of `graph` into an order in which each follows what it reads; a graph that is in order stays as it is.

    Some producers leave the order to the reader. Raises ValueError, with a reason that names the node, for a cycle or for an input
    that nothing produces. What the graphs inside of nodes read counts where it is made outside.
    """
    given = {value.name for value in (*graph.input, *graph.initializer)}
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    reads = {
        index: [makers[name] for name in _reads(node, given | makers.keys()) if name in makers and name not in given]
        for index, node in enumerate(graph.node)
    }
    if all(maker < index for index, sources in reads.items() for maker in sources):
        return
    try:
        order = list(TopologicalSorter(reads).static_order())
    except CycleError as error:
        cycle = ", ".join(dict.fromkeys(_label(graph.node[index]) for index in error.args[1][:4]))
        raise ValueError(f"its graph has a cycle through {cycle}") from error
    nodes = [onnx.NodeProto.FromString(graph.node[index].SerializeToString()) for index in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _reads(node: onnx.NodeProto, known: set[str]) -> list[str]:
    for name in node.input:
        if name and name not in known:
            raise ValueError(f"{_label(node)} reads {name!r}, which nothing produces")
    return [*node.input, *(name for name in _reads_inside(node) if name in known)]


def _reads_inside(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what the nodes of the graphs inside `node` read; names that are given inside are not given outside, too."""
    for graph in (graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from inner.input
            yield from _reads_inside(inner)


def _label(node: onnx.NodeProto) -> str:
    return f"the {node.op_type} node {node.name or next(iter(node.output), '')!r}"
