"""Splits a graph into parts that may become models of their own: by who needs what, and inside of that where it can be cut.

- Nodes with equal users, which hang together, are a group: whoever needs one of them needs all. Along an edge the users can only become
  fewer, so that groups need each other in one direction.
- What crosses from group to group may be several tensors. What may not cross (it has no rows, or can be computed from less) is computed
  again on the far side, from tensors that may.
- Inside of a group the parts are the blocks between its exits (`exporter.graph.cuts`): where they occur in other groups, or again in
  this one, with equal weights on other tensors, they can be stored once.
- What is computed from the network's inputs alone, without weights or products (an image made floats, a mask made large), belongs to
  whoever uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter

import onnx_ir as ir

from exporter.graph.cuts import find_exits
from exporter.graph.walk import walk_back

Test = Callable[[ir.Value], bool]


@dataclass(frozen=True)
class Part:
    """Nodes in topological order with what they take and give."""

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]


@dataclass(frozen=True)
class Rules:
    """What the partition of a graph follows.

    crosses: whether a tensor may go from one part to another. users: a number that tells who needs a node: equal numbers, equal users.
    beside: nodes that belong to whoever uses them. follows: whether a tensor is cheap to compute from
    others. inputs: the network's, which all may take.
    weighty: whether something in a part can have been tuned. light: whether it has no products and next to no constants.
    kept: whether nothing is to be joined across a tensor.
    """

    crosses: Test
    users: Callable[[ir.Node], int]
    beside: Collection[ir.Node]
    follows: Callable[[ir.Value, Collection[ir.Value]], bool]
    inputs: Collection[ir.Value]
    weighty: Callable[[Part], bool]
    light: Callable[[Part], bool]
    kept: Test


class Partitioner:
    """Splits `graph`, which is sorted topologically and has no node that no output needs, into what `targets` need beyond `given`."""

    def __init__(self, graph: ir.Graph, rules: Rules, targets: Sequence[ir.Value], given: Collection[ir.Value] = ()) -> None:
        self._rules, self._targets = rules, tuple(dict.fromkeys(targets))
        self._given = frozenset(graph.inputs) | frozenset(given)
        self._order = {node: index for index, node in enumerate(graph)}
        self._depending = _depending_nodes(graph)

    def split(self) -> list[Part]:
        """Return the parts, each after those whose outputs it takes."""
        wanted: dict[int, dict[ir.Value, None]] = {}
        loose = [value for value in self._targets if self._group(value) is None and value not in self._given]
        for value in self._targets:
            if (group := self._group(value)) is not None:
                wanted.setdefault(group, {})[value] = None
        parts: list[Part] = []
        for group in reversed(self._ordered_groups):
            if group in wanted:
                own = self._parts(group, tuple(sorted(wanted[group], key=self._place)))
                parts = own + parts
                for value in dict.fromkeys(value for part in own for value in part.inputs):
                    if (source := self._group(value)) not in (None, group):
                        wanted.setdefault(source, {})[value] = None
        return [*(self._part((value,), self._given) for value in loose), *parts]

    def _group(self, value: ir.Value) -> int | None:
        """Return the number of the group that makes `value`; None for what is given or belongs to whoever uses it."""
        producer = value.producer()
        return None if value in self._given or producer is None else self._groups.get(producer)

    @cached_property
    def _members(self) -> tuple[ir.Node, ...]:
        """Return the nodes that are needed beyond what is given, and belong to a group."""
        needed, _ = walk_back((value for value in self._targets if value not in self._given), self._given.__contains__)
        return self._sorted(node for node in needed & self._depending if node not in self._rules.beside)

    @cached_property
    def _groups(self) -> Mapping[ir.Node, int]:
        """Return for each node that belongs to one the number of its group: a part of the graph that hangs together, with equal users."""
        leaders = {node: node for node in self._members}

        def leader(node: ir.Node) -> ir.Node:
            while leaders[node] is not node:
                leaders[node] = leaders[leaders[node]]
                node = leaders[node]
            return node

        for node in self._members:
            for before in self._before(node):
                if self._rules.users(before) == self._rules.users(node):
                    leaders[leader(node)] = leader(before)
        return {node: self._order[leader(node)] for node in self._members}

    def _before(self, node: ir.Node) -> Iterator[ir.Node]:
        """Yield the members that make what `node` takes."""
        for value in node.inputs:
            producer = value.producer() if value is not None and value not in self._given else None
            if producer is not None and producer in self._member_set:
                yield producer

    @cached_property
    def _member_set(self) -> frozenset[ir.Node]:
        return frozenset(self._members)

    @cached_property
    def _ordered_groups(self) -> list[int]:
        sorter: TopologicalSorter[int] = TopologicalSorter()
        for node in self._members:
            group = self._groups[node]
            sorter.add(group, *(self._groups[before] for before in self._before(node) if self._groups[before] != group))
        return list(sorter.static_order())

    def _parts(self, group: int, targets: tuple[ir.Value, ...]) -> list[Part]:
        """Return the parts of `group` that make `targets`."""

        def stops(value: ir.Value) -> bool:
            return value in self._given or (self._group(value) not in (None, group) and self._rules.crosses(value))

        needed, taken = walk_back(targets, stops)
        # What follows from what crosses anyway need not cross.
        kept = {value for value in taken if value in self._given or not self._rules.follows(value, taken - {value})}
        needed, taken = walk_back(targets, lambda value: value in kept or (stops(value) and not self._rules.follows(value, kept)))
        members = self._sorted(node for node in needed & self._depending if node not in self._rules.beside)
        exits = find_exits(members, [value for value in taken if value not in self._rules.inputs], self._rules.crosses)
        ends = {*exits, *taken}
        parts = [self._part((value,), ends - {value}) for value in exits]
        rest = [value for value in targets if value not in exits]
        parts += [self._part(values, ends) for values in self._hanging_together(rest, ends)]
        return self._joined(
            parts, frozenset(value for part in parts for value in part.outputs if value in targets or self._rules.kept(value))
        )

    def _hanging_together(self, targets: Sequence[ir.Value], ends: Collection[ir.Value]) -> list[tuple[ir.Value, ...]]:
        """Return `targets` so that those are together that would otherwise compute something twice."""
        found: list[tuple[set[ir.Node], tuple[ir.Value, ...]]] = []
        for value in targets:
            nodes = walk_back((value,), ends.__contains__)[0] & self._depending - frozenset(self._rules.beside)
            values: tuple[ir.Value, ...] = ()
            for other in [other for other in found if other[0] & nodes]:
                found.remove(other)
                nodes, values = nodes | other[0], values + other[1]
            found.append((nodes, (*values, value)))
        return [values for _, values in found]

    def _joined(self, parts: list[Part], kept: frozenset[ir.Value]) -> list[Part]:
        """Join what cannot be tuned to its neighbour: a cut is always in front of something that a task may have changed.

        A part without weights (an activation, a pooling) goes to the part before it; where there is none, or several, to the part after it.
        Nothing is joined across a tensor that is to be `kept`.
        """
        row = _Row(parts, self._rules.inputs, kept, self._order)
        for place, part in enumerate(parts):
            before = row.maker(place)
            if before is not None and not self._rules.weighty(part):
                row.join(before, place)
        for place, part in reversed(row.found()):
            after = row.reader(place)
            if after is not None and row.maker(place) is None and self._may_wait(part):
                row.join(place, after)
        return [part for _, part in row.found()]

    def _may_wait(self, part: Part) -> bool:
        """Whether `part` is as well at the beginning of what follows: it has no weights, or is what an image goes through first."""
        at_first = self._rules.light(part) and all(value in self._rules.inputs for value in part.inputs)
        return at_first or not self._rules.weighty(part)

    def _part(self, outputs: Sequence[ir.Value], ends: Collection[ir.Value]) -> Part:
        needed, taken = walk_back(outputs, lambda value: value in ends or value in self._given)
        nodes = self._sorted(needed)
        inputs = dict.fromkeys(value for node in nodes for value in node.inputs if value in taken)
        return Part(nodes, tuple(value for value in inputs if value is not None), tuple(outputs))

    def _sorted(self, nodes: Iterable[ir.Node]) -> tuple[ir.Node, ...]:
        return tuple(sorted(nodes, key=self._order.__getitem__))

    def _place(self, value: ir.Value) -> int:
        producer = value.producer()
        return -1 if producer is None else self._order[producer]


class _Row:
    """Parts of a group by their places, some of which become one. inputs: of the network. kept: across which nothing is joined."""

    def __init__(
        self, parts: Sequence[Part], inputs: Collection[ir.Value], kept: Collection[ir.Value], order: Mapping[ir.Node, int]
    ) -> None:
        self._parts = dict(enumerate(parts))
        self._inputs, self._kept, self._order = inputs, kept, order
        self._makers = {value: place for place, part in enumerate(parts) for value in part.outputs}
        self._readers: dict[ir.Value, set[int]] = {}
        for place, part in enumerate(parts):
            for value in part.inputs:
                self._readers.setdefault(value, set()).add(place)

    def found(self) -> list[tuple[int, Part]]:
        """Return the parts that there are now, each after those whose outputs it takes."""
        return sorted(self._parts.items())

    def maker(self, place: int) -> int | None:
        """Return the part that alone is before the one at `place`; what the network takes may be beside it."""
        places = {self._makers.get(value) for value in self._parts[place].inputs if value not in self._inputs}
        return places.pop() if len(places) == 1 else None

    def reader(self, place: int) -> int | None:
        """Return the part that alone takes what the one at `place` gives."""
        places = set[int]().union(*(self._readers.get(value, ()) for value in self._parts[place].outputs))
        return places.pop() if len(places) == 1 else None

    def join(self, first: int, second: int) -> None:
        """Make one of two parts of which the second takes what the first gives, unless others take it, too."""
        before, after = self._parts[first], self._parts[second]
        if self.reader(first) != second or not set(before.outputs).isdisjoint(self._kept):
            return
        inputs = dict.fromkeys((*before.inputs, *(value for value in after.inputs if value not in before.outputs)))
        nodes = sorted({*before.nodes, *after.nodes}, key=self._order.__getitem__)
        del self._parts[first]
        self._parts[second] = Part(tuple(nodes), tuple(inputs), after.outputs)
        for value in before.inputs:
            self._readers[value].discard(first)
            self._readers[value].add(second)


def _depending_nodes(graph: ir.Graph) -> frozenset[ir.Node]:
    values, nodes = set(graph.inputs), set()
    for node in graph:
        if any(value in values for value in node.inputs):
            nodes.add(node)
            values.update(node.outputs)
    return frozenset(nodes)
