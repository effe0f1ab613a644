"""Finds, for the weights of one graph, those that stand in the same places of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from exporter.graph.digests import given_inputs


@dataclass(frozen=True)
class WeightMatch:
    """Two initializers in the same place, and the node of the first graph that takes the first of them."""

    node: ir.Node
    left: ir.Value
    right: ir.Value


Ends = tuple[Sequence[ir.Value], Sequence[ir.Value]]  # what a part of a graph takes, and what it gives


def match_weights(left: Ends, right: Ends) -> list[WeightMatch] | None:
    """Return the initializers of two parts of graphs by place, or None where they are not the same operators wired alike.

    Both graphs are walked at once from the outputs back, so that neither names nor the order of nodes matter, nor that one of them
    keeps two equal weights, or two equal nodes, as one. Attributes and the shapes of weights may differ.
    """
    ends = dict(zip(left[0], right[0], strict=False))
    if len(left[0]) != len(right[0]) or len(left[1]) != len(right[1]):
        return None
    found: dict[tuple[ir.Value, ir.Value], WeightMatch] = {}
    seen: set[tuple[ir.Value, ir.Value]] = set()
    pending: list[tuple[ir.Node | None, ir.Value, ir.Value]] = []
    pending += [(None, ours, theirs) for ours, theirs in zip(left[1], right[1], strict=True)][::-1]
    while pending:
        node, ours, theirs = pending.pop()
        if (ours, theirs) in seen:
            continue
        seen.add((ours, theirs))
        if node is not None and ours.is_initializer() and theirs.is_initializer():
            found[ours, theirs] = WeightMatch(node, ours, theirs)
        elif ours in ends or theirs in ends.values():
            if ends.get(ours) is not theirs:
                return None
        else:
            inputs = _inputs_side_by_side(ours, theirs)
            if inputs is None:
                return None
            pending += inputs[::-1]
    return list(found.values())


def _inputs_side_by_side(ours: ir.Value, theirs: ir.Value) -> list[tuple[ir.Node, ir.Value, ir.Value]] | None:
    left, right = ours.producer(), theirs.producer()
    if left is None or right is None or _place(left, ours) != _place(right, theirs):
        return None
    pairs = list(zip(given_inputs(left), given_inputs(right), strict=True))
    if any((a is None) != (b is None) for a, b in pairs):
        return None
    return [(left, a, b) for a, b in pairs if a is not None and b is not None]


def _place(node: ir.Node, output: ir.Value) -> tuple[str, str, int, int]:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return domain, node.op_type, len(given_inputs(node)), node.outputs.index(output)
