"""Dtypes behind operators that onnx does not know."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph.shapes import has_foreign, infer, name_of


class ForeignTypes(ir.passes.InPlacePass):
    """Gives a dtype to what has none, as ONNX Runtime infers it. Shapes stay as they are: they are inferred where they are needed."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Note types in place."""
        if not has_foreign(model):
            return ir.passes.PassResult(model, modified=False)
        dtypes, changed = infer(model, batch=1).dtypes, False
        for value in (value for node in model.graph for value in node.outputs):
            if value.dtype is None and name_of(value) in dtypes:
                value.dtype, changed = dtypes[name_of(value)], True
        return ir.passes.PassResult(model, modified=changed)
