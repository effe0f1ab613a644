"""Where a part of a network can be cut on its own: the tensors through which all that is before them flows on.

What a tensor needs is its *cone*. A tensor is an exit if it is the only one that leaves its cone: nothing else that is computed there
is used behind. Cones of two exits lie one in the other or apart, so that what is between them are the blocks of the part: each has one
tensor that leaves it. Ways side by side (two towers, the levels of a pyramid) are blocks of their own, as what follows one by one is.

An exit post-dominates its cone. With the nodes as bits, in any topological order: `before` a node are the nodes of its cone, `behind`
it whatever uses one of them; it is an exit if it has nothing behind that is not before it. Time O(nodes x edges / 64).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import onnx_ir as ir


def find_exits(nodes: Sequence[ir.Node], sources: Collection[ir.Value], usable: Callable[[ir.Value], bool]) -> list[ir.Value]:
    """Return the exits among what `nodes`, in topological order, make, in that order.

    sources: tensors from elsewhere that count as made here: behind an exit none of them is used any more that was used before it. Others
    that the nodes take may be used on both sides. usable: whether a tensor may be an exit.
    """
    makers: dict[ir.Value, int] = {value: index for index, value in enumerate(sources)}
    for index, node in enumerate(nodes, len(sources)):
        makers.update(dict.fromkeys(node.outputs, index))
    taken = [sorted({makers[value] for value in node.inputs if value is not None and value in makers}) for node in nodes]
    uses = [0] * (len(sources) + len(nodes))
    for index, indices in enumerate(taken, len(sources)):
        for maker in indices:
            uses[maker] |= 1 << index
    return list(_exits(nodes, len(sources), taken, uses, usable))


def _exits(
    nodes: Sequence[ir.Node], first: int, taken: Sequence[Sequence[int]], uses: Sequence[int], usable: Callable[[ir.Value], bool]
) -> list[ir.Value]:
    before, behind = [0] * len(uses), [0] * len(uses)
    waiting = [mask.bit_count() for mask in uses]
    found = []
    for index, (node, makers) in enumerate(zip(nodes, taken, strict=True), first):
        for maker in makers:
            before[index] |= before[maker] | 1 << maker
            behind[index] |= behind[maker] | uses[maker]
        for maker in makers:
            waiting[maker] -= 1
            if not waiting[maker]:
                before[maker] = behind[maker] = 0  # of a large network, all of them would take gigabytes
        used = [value for value in node.outputs if value.uses() or value.is_graph_output()]
        if not behind[index] & ~(before[index] | 1 << index) and len(used) == 1 and usable(used[0]):
            found.append(used[0])
    return found
