"""Gives every output of a network a node of its own."""

from __future__ import annotations

import onnx_ir as ir


class OwnOutputs(ir.passes.InPlacePass):
    """Puts an Identity before an output that the network also uses inside, or gives twice: what leaves is then no tap itself."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place."""
        graph, changed = model.graph, False
        for index, value in enumerate(graph.outputs):
            if value.is_graph_input() or value.producer() is None:
                continue
            if value.uses() or graph.outputs.count(value) > 1:
                graph.outputs[index] = _copy(graph, value, index)
                changed = True
        return ir.passes.PassResult(model, modified=changed)


def _copy(graph: ir.Graph, value: ir.Value, index: int) -> ir.Value:
    node = ir.node("Identity", [value])
    (output,) = node.outputs
    # The copy takes the name: it is what people know the output by.
    output.name, value.name = value.name, f"{value.name}_inside_{index}"
    output.shape, output.type = value.shape, value.type
    graph.append(node)
    return output
