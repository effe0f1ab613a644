"""Takes out what does nothing and folds BatchNorm into convolutions, by onnxscript's rules, as torch's exporters do, or some of them."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import rewriter
from onnxscript.rewriter.rules import common as rules
from onnxscript.rewriter.rules.common import _fuse_batchnorm


class _OfRunning:
    """A BatchNorm that goes by its running statistics: onnxscript's rules fold one in training mode, too."""

    def check(self, context: object, x: ir.Value, inbound_out: ir.Value, batchnorm_out: ir.Value) -> rewriter.MatchResult:
        """Whether it can be folded."""
        node = batchnorm_out.producer()
        if node is None or node.attributes.get_int("training_mode", 0) != 0:
            return rewriter.MatchResult().fail("it is in training mode")
        found: rewriter.MatchResult = super().check(context, x, inbound_out, batchnorm_out)  # type: ignore[misc]
        return found


class _IntoConv(_OfRunning, _fuse_batchnorm.FuseBatchNormIntoConv):
    pass


class _IntoConvTranspose(_OfRunning, _fuse_batchnorm.FuseBatchNormIntoConvTranspose):
    pass


class _IntoGemm(_OfRunning, _fuse_batchnorm.FuseBatchNormIntoGemm):
    pass


# Those of optimise.py that go by constants and dtypes alone: shapes that a file records are anybody's.
_RULES = (
    rules.dropout_zero_rule,
    rules.dropout_inference_rule,
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
    _IntoConv.rule(),  # type: ignore[no-untyped-call]
    _IntoConvTranspose.rule(),  # type: ignore[no-untyped-call]
    _IntoGemm.rule(),  # type: ignore[no-untyped-call]
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_conv_transpose_rule,
)


class Simplify(ir.passes.InPlacePass):
    """Applies the rules; a BatchNorm that is folded gives a convolution weights of its own, in float32 by numpy, whoever wrote the file."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place."""
        result = rewriter.RewritePass(_RULES)(model)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)  # rules write constants as nodes
        return ir.passes.PassResult(model, modified=bool(result.modified))
