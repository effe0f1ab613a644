"""Optimises a freshly traced graph: folds constants, fuses BatchNorm into convolutions, removes what does nothing."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import rewriter
from onnxscript.rewriter.rules import common as rules

from exporter.graph.passes.constants import FoldConstants

# onnxscript's default rules for float networks, without
# - those that fuse two limits (Clip, Min, Max): where a tensor is limited twice, they give two constants one name, and one is lost;
# - those that fuse Pad into Conv: a MaxPool that reads the same Pad is then its only reader, and ONNX Runtime fuses these two as if the
#   pooling padded with zeros, while it pads with minus infinity;
# - `slice_split_rule`: it compares every pair of slices with every node, which takes nine tenths of the time on a vision transformer.
_RULES = (
    rules.mul_by_1_rule,
    rules.add_0_rule,
    rules.sub_0_rule,
    rules.div_by_1_rule,
    rules.dropout_zero_rule,
    rules.dropout_inference_rule,
    rules.one_reshape_matmul_reshape_rule,
    rules.two_reshapes_matmul_reshape_rule,
    rules.cast_constant_of_shape_rule,
    rules.cast_constant_of_shape_without_value_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.materialize_reshape_shape_rule,
    rules.successive_relu_rule,
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.flatten_to_reshape_rule,
    rules.reshape_reshape_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.squeeze_reshape_1d_rule,
    rules.no_op_dynamic_scatter_nd_rule,
    rules.no_op_static_scatter_nd_rule,
    rules.fuse_batchnorm_into_conv_rule,
    rules.fuse_batchnorm_into_conv_transpose_rule,
    rules.fuse_batchnorm_into_gemm_rule,
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_conv_transpose_rule,
    rules.remove_optional_bias_from_gemm_rule,
)
_ROUNDS = 2  # folding makes room for rules, and rules for folding


def optimise(model: ir.Model) -> None:
    """Optimise `model` in place."""
    passes = ir.passes.Sequential(
        common.InlinePass(),
        ir.passes.PassManager(
            [
                FoldConstants(infer_shapes=True),
                rewriter.RewritePass(_RULES),
                common.RemoveUnusedNodesPass(),
                common.RemoveUnusedOpsetsPass(),
            ],
            steps=_ROUNDS,
            early_stop=True,
        ),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )
    passes(model)
