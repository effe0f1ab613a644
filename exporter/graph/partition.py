"""Splits a graph at its cut points into parts, each with one tap to the next.

Three things are more than a chain of cuts:
- A network with several outputs: the output with the most nodes behind it gives the chain; another output is a branch of its own from the
  last tap on its way. Where that would compute something twice, the outputs are not told apart: they end in one common last part.
- A network with several inputs: the largest is the source; what is computed from the others belongs to the part that uses it.
- Two ways at once, of which one is known from another network (a Siamese head takes frozen and tuned features): a tensor inside a part
  whose address is a tap elsewhere becomes a tap here, and the other way is cut as if that tensor were given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import onnx_ir as ir

from exporter.graph.cuts import find_crossing, find_cut_points

Test = Callable[[ir.Value], bool]


@dataclass(frozen=True)
class Part:
    """Nodes in topological order with what they take and give. `inputs`: first the tap before it, then what else is needed.

    carried: nodes that cost next to nothing and stand behind the cut because less crosses there.
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    carried: frozenset[ir.Node] = frozenset()


Join = Callable[[list[Part]], list[Part]]


class Partitioner:
    """Splits `graph`, which is sorted topologically and has no node that no output needs.

    usable: whether a tensor may be a tap. known: whether a tensor is a tap in another network. join: joins neighbours that are not
    worth a cut between them; it gets the parts of one way in order.
    """

    def __init__(self, graph: ir.Graph, usable: Test, known: Test, join: Join) -> None:
        self._order = {node: index for index, node in enumerate(graph)}
        self._inputs = list(graph.inputs)
        self._outputs = list(graph.outputs)
        self._usable, self._known, self._join = usable, known, join
        self._computing = _depending_nodes(graph)

    def split(self) -> list[Part]:
        """Return the parts, each after those whose outputs it takes."""
        reach = {output: self._walk([output], self._inputs)[0] for output in self._outputs}
        main, *others = sorted(self._outputs, key=lambda output: -len(reach[output]))
        parts = self._way([main], self._inputs)
        for output in others:
            taps = [value for part in parts for value in part.outputs]
            branch = self._way([output], [*self._inputs, *taps])
            if self._repeats(branch, parts):
                return self._way(self._outputs, self._inputs)
            parts += branch
        return parts

    def crossing(self) -> list[ir.Value]:
        """Return the inputs from which something is computed that is used on both sides of places that could be cut without it."""
        main = max(self._outputs, key=lambda output: len(self._walk([output], self._inputs)[0]))
        needed, taken = self._walk([main], self._inputs)
        source = self._source(self._inputs, taken)
        values = find_crossing(self._sorted(needed), source, [main], [value for value in taken if value is not source])
        _, origins = self._walk(values, self._inputs)
        return [value for value in self._inputs if value in origins]

    def _way(self, targets: Sequence[ir.Value], given: Sequence[ir.Value]) -> list[Part]:
        """Return the parts from the tensors `given` to `targets`."""
        needed, taken = self._walk(targets, given)
        source = self._source(given, taken)
        others = [value for value in taken if value is not source]
        nodes = self._sorted(needed)
        cuts = [value for value in find_cut_points(nodes, source, targets, others) if value is source or self._usable(value)]
        ends = [(cut,) for cut in cuts if cut not in targets] + [tuple(targets)]
        raw = [self._part(start, end, given) for start, end in pairwise(ends)] if len(ends) > 1 else []
        return [refined for part in self._join(raw) for refined in self._refine(part)]

    def _part(self, start: Sequence[ir.Value], end: Sequence[ir.Value], given: Sequence[ir.Value]) -> Part:
        needed, taken = self._walk(end, [*start, *given])
        side = [value for value in given if value in taken and value not in start]
        return Part(self._sorted(needed), (*start, *side), tuple(end))

    def _refine(self, part: Part) -> list[Part]:
        """Return `part`, or its parts if taps of other networks are inside it."""
        inside = {value for node in part.nodes for value in node.outputs if value not in part.outputs and self._known(value)}
        _, taken = self._walk(part.outputs, [*part.inputs, *inside])
        found = [value for value in self._by_order(inside & taken) if self._usable(value)]
        if not found:
            return [part]
        parts: list[Part] = []
        for tap in found:
            parts += self._way([tap], [*part.inputs, *(value for earlier in parts for value in earlier.outputs)])
        rest = self._way(part.outputs, [*part.inputs, *found])
        return [part] if self._repeats(rest, parts) else [*parts, *rest]

    def _repeats(self, left: Sequence[Part], right: Sequence[Part]) -> bool:
        """Return whether two ways would compute the same twice; constants do not count, nor what stands behind a cut for its size."""
        carried = frozenset[ir.Node]().union(*(part.carried for part in (*left, *right)))
        return bool(_nodes(left) & _nodes(right) & self._computing - carried)

    def _source(self, given: Sequence[ir.Value], taken: Collection[ir.Value]) -> ir.Value:
        """Return the tensor that the way starts from: the earliest tap, or of the network's inputs the one with the largest rows."""
        used = [value for value in given if value in taken]
        taps = [value for value in used if value.producer() is not None]
        if taps:
            return min(taps, key=lambda value: self._order[_producer(value)])
        return max(used, key=_row_size)

    def _walk(self, targets: Iterable[ir.Value], stop: Collection[ir.Value]) -> tuple[set[ir.Node], set[ir.Value]]:
        """Return the nodes that `targets` need when the tensors `stop` are given, and which of those they take."""
        stops, needed, taken = set(stop), set[ir.Node](), set[ir.Value]()
        pending = list(targets)
        while pending:
            value = pending.pop()
            if value in stops:
                taken.add(value)
                continue
            node = value.producer()
            if node is not None and node not in needed:
                needed.add(node)
                pending += [item for item in node.inputs if item is not None]
        return needed, taken

    def _sorted(self, nodes: Iterable[ir.Node]) -> tuple[ir.Node, ...]:
        return tuple(sorted(nodes, key=self._order.__getitem__))

    def _by_order(self, values: Iterable[ir.Value]) -> list[ir.Value]:
        return sorted(values, key=lambda value: self._order[_producer(value)])


def _depending_nodes(graph: ir.Graph) -> set[ir.Node]:
    values, nodes = set(graph.inputs), set()
    for node in graph:
        if any(value in values for value in node.inputs):
            nodes.add(node)
            values.update(node.outputs)
    return nodes


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _row_size(value: ir.Value) -> int:
    return prod(dim for dim in tuple(value.shape or ())[1:] if isinstance(dim, int))


def _nodes(parts: Iterable[Part]) -> set[ir.Node]:
    return {node for part in parts for node in part.nodes}
