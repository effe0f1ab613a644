"""Leaves out inputs that nothing uses."""

from __future__ import annotations

import onnx_ir as ir


class UsedInputs(ir.passes.InPlacePass):
    """Drops inputs that no output depends on: a client would send them for nothing, and Triton refuses an ensemble that has such."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Drop in place; at least one input stays."""
        inputs = model.graph.inputs
        unused = [value for value in inputs if not value.uses() and not value.is_graph_output()]
        if not unused or len(unused) == len(inputs):
            return ir.passes.PassResult(model, modified=False)
        for value in unused:
            inputs.remove(value)
        return ir.passes.PassResult(model, modified=True)
