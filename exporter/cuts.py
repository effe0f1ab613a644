"""Cut points: the places where a network can be split, found in the graph itself.

A cut point is a tensor through which everything flows from the input to the output: a dominator of the output among the tensors that
depend on the input. No list of layer names per architecture is needed.

They are found in one pass. Walk the nodes in any topological order and keep the set of *live* tensors: those that depend on the input
and have a consumer still to come. Right after a tensor t is produced, t is a dominator of the output exactly if it is the only live
one. (If another tensor u were live, the path through u to its later consumer would go round t; and if t is alone, every path must pass
it.) Time O(nodes + edges).
"""

from __future__ import annotations

import onnx_ir as ir


def find_cut_points(graph: ir.Graph) -> tuple[ir.Value, ...]:
    """Return the cut points of `graph` in order, from its input to its output, both included.

    `graph` is sorted topologically, has one input and one output and no node that the output does not need.
    """
    source = graph.inputs[0]
    live = {source: _uses(source)}
    cuts = [source]
    for node in graph:
        inputs = [value for value in node.inputs if value in live]
        if not inputs:
            continue  # does not depend on the input
        for value in inputs:
            live[value] -= 1
            if not live[value]:
                del live[value]
        live.update({value: _uses(value) for value in node.outputs if _uses(value)})
        if len(live) == 1 and next(iter(live)).producer() is node:
            cuts.append(next(iter(live)))
    return tuple(cuts)


def _uses(value: ir.Value) -> int:
    return len(value.uses()) + int(value.is_graph_output())
