"""Folds what does not depend on the input, so that a constant is a constant however a producer computed it."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer


class FoldConstants(ir.passes.InPlacePass):
    """Constant folding by onnxscript's optimizer; weights stay as they are, only arithmetic on constants goes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place."""
        result = optimizer.fold_constants_ir(model, onnx_shape_inference=False)
        return ir.passes.PassResult(model, modified=bool(result.modified))
