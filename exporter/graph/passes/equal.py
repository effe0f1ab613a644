"""Computes nothing twice."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph.digests import addresses


class MergeEqual(ir.passes.InPlacePass):
    """Takes a tensor that is computed a second time, from equal weights, from where it is computed first.

    A Siamese network is traced with two trunks of equal weights: here they become one, up to the first tuned block. The nodes must be in
    topological order; those that nothing uses any more stay. Outputs of the network stay nodes of their own.
    Raises UnsupportedModel for what cannot be hashed, as splitting the network does.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place."""
        first: dict[str, ir.Value] = {}
        changed = False
        for value, address in addresses(model.graph, model.opset_imports).items():
            if value.is_graph_output():
                continue
            earlier = first.setdefault(address, value)
            if earlier is not value:
                value.replace_all_uses_with(earlier)
                changed = True
        return ir.passes.PassResult(model, modified=changed)
