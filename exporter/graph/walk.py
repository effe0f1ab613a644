"""Walks a graph from what is wanted back to what is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir


def walk_back(targets: Iterable[ir.Value], stops: Callable[[ir.Value], bool]) -> tuple[set[ir.Node], set[ir.Value]]:
    """Return the nodes that `targets` need, as far as the values that `stops`, and which of these they take. Targets do not stop."""
    needed, taken = set[ir.Node](), set[ir.Value]()
    pending = [node for value in targets if (node := value.producer()) is not None]
    while pending:
        node = pending.pop()
        if node in needed:
            continue
        needed.add(node)
        for value in node.inputs:
            if value is not None and stops(value):
                taken.add(value)
            elif value is not None and (producer := value.producer()) is not None:
                pending.append(producer)
    return needed, taken
