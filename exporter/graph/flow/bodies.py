"""What the bodies of a node take from outside, and what to call the node with them: equal bodies have equal names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from exporter.graph.digests import block_digest, counts

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_DIGITS = 32  # of a digest, in a name


def has_bodies(node: ir.Node) -> bool:
    """Return whether `node` has graphs inside (If, Loop, Scan)."""
    return any(attribute.type in _GRAPHS for attribute in node.attributes.values())


def bodies_of(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs inside `node`, in the order of their attributes' names."""
    for _, attribute in sorted(node.attributes.items()):
        if attribute.type in _GRAPHS:
            yield from [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else attribute.as_graphs()


def inner_graphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs inside `node`, and those inside of their nodes, each before what is in it."""
    for graph in bodies_of(node):
        yield graph
        for inner in graph:
            yield from inner_graphs(inner)


def captured(node: ir.Node) -> list[ir.Value]:
    """Return what the bodies of `node` take from outside, each once.

    The order follows from what is computed: from the results back, whatever the order of the nodes.
    """
    inside = {value for graph in inner_graphs(node) for value in _made(graph)}
    return [value for value in dict.fromkeys(_taken(node, set())) if value not in inside]


def _made(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _taken(node: ir.Node, seen: set[ir.Node]) -> Iterator[ir.Value]:
    """Yield what the bodies of `node` use, from their results back; what is made inside is among it."""
    for graph in bodies_of(node):
        own = set(graph)
        for output in graph.outputs:
            yield output
            yield from _behind([output], own, seen)
        yield from _behind((value for inner in graph for value in inner.outputs), own, seen)  # what no result needs


def _behind(values: Iterable[ir.Value], own: set[ir.Node], seen: set[ir.Node]) -> Iterator[ir.Value]:
    pending = [node for value in values if (node := value.producer()) is not None]
    while pending:
        node = pending.pop()
        if node in seen or node not in own:
            continue
        seen.add(node)
        given = [value for value in node.inputs if value is not None]
        yield from given
        yield from _taken(node, seen)
        pending += [maker for value in reversed(given) if (maker := value.producer()) is not None]


def name_body(function: ir.Function, kind: str) -> str:
    """Return what to call `function`, which holds one node of the operator `kind`: by what it computes of its inputs."""
    return f"{kind}_{block_digest(function, function.inputs, function.outputs, function.opset_imports)[:_DIGITS]}"


def number_values(function: ir.Function) -> None:
    """Name everything inside of `function` by its place, and forget shapes, so that equal bodies are equal files, whoever wrote them."""
    for index, value in enumerate(function.inputs):
        value.name, value.shape = f"input_{index}", None
    owners = {graph: node for node in function.all_nodes() for graph in bodies_of(node)}
    graphs: list[ir.Function | ir.Graph] = [function, *owners]
    place = 0
    for graph in graphs:
        if isinstance(graph, ir.Graph):
            graph.name = f"body_{place}"
            for index, value in enumerate(graph.inputs):
                shape = value.shape if counts(owners[graph], index) else None  # which ONNX Runtime wants to know
                place, value.name, value.shape = place + 1, f"value_{place}", shape
            constants = list(graph.initializers.values())
            graph.initializers.clear()
            for value in constants:
                place, value.name = place + 1, f"value_{place}"
                value.metadata_props.clear()
                graph.register_initializer(value)
        for node in graph:
            node.name = f"{node.op_type.lower()}_{place}"
            for value in node.outputs:
                value.const_value = None
                place, value.name, value.shape = place + 1, f"value_{place}", None
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR:
                    attribute.value.name = None
