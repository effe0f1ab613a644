"""What is cheaper to compute again than to hand over: values that follow from smaller ones without weights or products.

An enlarged feature map, numbers made floats from int8, a mask made large: where such a value is used in another part of the network, that
part takes what it comes from, and computes it itself. What comes from the network's inputs alone stands beside the network: it belongs
to whoever uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from exporter.graph.macs import is_product

_SMALL = 4096  # bytes of constants in an operator that count for nothing (the mean of an image, the bounds of an activation)


@dataclass(frozen=True)
class Cheap:
    """What of a graph is cheap to compute again.

    beside: nodes that stand beside the network. again: values that are better computed again where they are used than handed over.
    origins: the values from which others follow without weights and products.
    """

    beside: frozenset[ir.Node]
    again: frozenset[ir.Value]
    origins: Mapping[ir.Value, frozenset[ir.Value]]

    def follows(self, value: ir.Value, given: Collection[ir.Value]) -> bool:
        """Whether `value` follows from what is `given` without weights and products."""
        seen, pending = set[ir.Value](), [value]
        while pending:
            origins = self.origins.get(pending.pop())
            if not origins:
                return False
            pending += [origin for origin in origins if origin not in given and origin not in seen]
            seen |= origins
        return True


def find_cheap(
    graph: ir.Graph, inputs: frozenset[ir.Value], has_rows: Callable[[ir.Value], bool], row_bytes: Callable[[ir.Value], int]
) -> Cheap:
    """Return what of `graph`, which is sorted topologically, is cheap to compute again.

    inputs: those of its inputs that are the network's. has_rows: whether a value can be handed over at all. row_bytes: the size of a row
    of one that can.
    """
    origins: dict[ir.Value, frozenset[ir.Value]] = {value: frozenset() for value in graph.inputs}
    beside, again = set[ir.Node](), set[ir.Value]()
    for node in graph:
        found = _origins(node, origins, again, has_rows) or frozenset()
        origins.update(dict.fromkeys(node.outputs, found))
        if found:
            # Those of the network are there, and only read.
            cost = sum(row_bytes(value) * (1 if value in inputs else 2) for value in found)
            again.update(
                value for value in node.outputs if not has_rows(value) or cost < 2 * row_bytes(value) + (found <= inputs)
            )
        if found and found <= inputs and again.issuperset(node.outputs):
            beside.add(node)
    return Cheap(frozenset(beside), frozenset(value for value in again if has_rows(value)), origins)


def is_light(nodes: Iterable[ir.Node]) -> bool:
    """Whether `nodes` have no products, and next to no constants."""
    return all(
        not is_product(node)
        and sum(value.const_value.nbytes for value in node.inputs if value is not None and value.const_value is not None)
        <= _SMALL
        for node in nodes
    )


def _origins(
    node: ir.Node,
    origins: Mapping[ir.Value, frozenset[ir.Value]],
    again: Collection[ir.Value],
    has_rows: Callable[[ir.Value], bool],
) -> frozenset[ir.Value] | None:
    """Return the values from which `node` can be computed without weights and products; none if it needs only constants.

    None: it has weights or products, or needs what cannot be handed over.
    """
    taken = [value for value in node.inputs if value is not None and value in origins]
    if not taken:
        return frozenset()
    if not is_light([node]):
        return None
    found: set[ir.Value] = set()
    for value in taken:
        if value in again:
            found |= origins[value]
        elif has_rows(value):
            found.add(value)
        else:
            return None
    return frozenset(found)
