"""Cut points: the places where a network can be split, found in the graph itself.

A cut point is a tensor through which everything flows from the source to the targets: a dominator of the targets among the tensors
that depend on the source. No list of layer names per architecture is needed.

They are found in one pass. Walk the nodes in any topological order and keep the set of *live* tensors: those that depend on the source
and have a consumer still to come. Right after a tensor t is produced, t is a dominator exactly if it is the only live one. (If another
tensor u were live, the path through u to its later consumer would go round t; and if t is alone, every path must pass it.)
Time O(nodes + edges).

What does not depend on the source (constants, and what a network computes from its other inputs) belongs to the nodes that use it. A
value computed from other inputs that is used on both sides of a tensor would have to be computed twice or to cross, so that there is no
cut there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx_ir as ir


def find_cut_points(
    nodes: Sequence[ir.Node], source: ir.Value, targets: Sequence[ir.Value], others: Collection[ir.Value] = ()
) -> tuple[ir.Value, ...]:
    """Return the cut points in order, from `source` on; the only target, if there is one, is the last.

    nodes: in topological order, all needed for `targets`. others: further tensors that the nodes may take.
    """
    return (source, *(value for value, crossing in _lone_tensors(nodes, source, targets, others) if not crossing))


def find_crossing(
    nodes: Sequence[ir.Node], source: ir.Value, targets: Sequence[ir.Value], others: Collection[ir.Value]
) -> frozenset[ir.Value]:
    """Return what is computed from `others` alone and used on both sides of places that would be cut points without it."""
    return frozenset[ir.Value]().union(*(crossing for _, crossing in _lone_tensors(nodes, source, targets, others)))


def _lone_tensors(
    nodes: Sequence[ir.Node], source: ir.Value, targets: Sequence[ir.Value], others: Collection[ir.Value]
) -> Iterator[tuple[ir.Value, frozenset[ir.Value]]]:
    """Yield the tensors behind `source` that are alone when they are made, each with what else would have to cross there."""
    depends = _depending(nodes, source)
    side = _side_values(nodes, depends, others)
    uses = _count_uses(nodes, depends, targets)
    side_uses = Counter(value for node in nodes if node in depends for value in side[node])
    live = {source: uses[source]}
    side_live: dict[ir.Value, int] = {}
    for node in nodes:
        if node not in depends:
            continue
        _consume(node, live)
        for value in side[node]:
            side_live[value] = side_live.get(value, side_uses[value]) - 1
            if not side_live[value]:
                del side_live[value]
        live.update({value: uses[value] for value in node.outputs if uses[value]})
        if len(live) == 1 and next(iter(live)).producer() is node:
            yield next(iter(live)), frozenset(side_live)


def _consume(node: ir.Node, live: dict[ir.Value, int]) -> None:
    for value in node.inputs:
        if value is not None and value in live:
            live[value] -= 1
            if not live[value]:
                del live[value]


def _depending(nodes: Sequence[ir.Node], source: ir.Value) -> set[ir.Node]:
    values, depending = {source}, set()
    for node in nodes:
        if any(value in values for value in node.inputs):
            depending.add(node)
            values.update(node.outputs)
    return depending


def _count_uses(nodes: Sequence[ir.Node], depends: set[ir.Node], targets: Sequence[ir.Value]) -> Counter[ir.Value]:
    uses = Counter(value for node in nodes if node in depends for value in node.inputs if value is not None)
    uses.update(targets)
    return uses


def _side_values(
    nodes: Sequence[ir.Node], depends: set[ir.Node], others: Collection[ir.Value]
) -> Mapping[ir.Node, frozenset[ir.Value]]:
    """Return for each node what it needs, directly or not, that is computed from `others` alone."""
    of_value: dict[ir.Value, frozenset[ir.Value]] = dict.fromkeys(others, frozenset())
    of_node: dict[ir.Node, frozenset[ir.Value]] = {}
    for node in nodes:
        known = [of_value[value] for value in node.inputs if value is not None and value in of_value]
        of_node[node] = frozenset().union(*known)
        if known and node not in depends:
            of_value.update({value: of_node[node] | {value} for value in node.outputs})
    return of_node
