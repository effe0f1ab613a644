"""Folds what does not depend on the input, so that a constant is a constant however a producer computed it."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer


class FoldConstants(ir.passes.InPlacePass):
    """Constant folding by onnxscript's optimizer; weights stay as they are, only arithmetic on constants goes.

    infer_shapes: infer each node's shapes on the way, which lets more be folded and takes its time.
    """

    def __init__(self, infer_shapes: bool = False) -> None:
        super().__init__()
        self._infer_shapes = infer_shapes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place."""
        result = optimizer.fold_constants_ir(model, onnx_shape_inference=self._infer_shapes)
        return ir.passes.PassResult(model, modified=bool(result.modified))
