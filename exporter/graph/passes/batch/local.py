"""Makes every block compute the batch size from its own input.

With a dynamic batch, exporters compute the batch size once from the graph's input (`Shape(image)`) and use it everywhere. That ties all
blocks to the input: no tensor but the image would be a cut point. Here whatever depends on the image through its batch size alone is
found (sizes.py), taken out where it says nothing (static.py, expand.py), and recomputed from a neighbour elsewhere (neighbour.py).
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from exporter.graph.passes.batch.expand import drop_expand, static_expand
from exporter.graph.passes.batch.neighbour import use_neighbour
from exporter.graph.passes.batch.sizes import Sizes, uses_sizes
from exporter.graph.passes.batch.static import fold_constant_size, static_reshape

# The most general one last: what can be said with constants needs no neighbour.
_REWRITES = (fold_constant_size, static_reshape, static_expand, drop_expand, use_neighbour)


class LocalBatchSize(ir.passes.InPlacePass):
    """Leaves no node that takes the batch size from anywhere but its own inputs, where these have it on one of their axes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place."""
        if not uses_sizes(model.graph):
            return ir.passes.PassResult(model, modified=False)
        sizes = Sizes(model)
        changed = [node for rewrite in _REWRITES for node in list(model.graph) if rewrite(node, sizes, model.graph)]
        common.RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=bool(changed))
