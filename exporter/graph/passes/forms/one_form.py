"""Brings what torch's two exporters, and others, write differently to one form, so that equal networks of equal weights share.

Each rewrite looks at one node and what stands before it. They go by shapes that are inferred (sizes.py), never by those that a file
records. The weights stay as they are. What comes out is what is served, too: the one form of each is chosen to be no slower.
*Alternative: hash one form and serve the other.* Then two graphs per network have to be kept in step, cut for cut.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes import common

from exporter.graph.passes.batch.expand import drop_expand
from exporter.graph.passes.batch.sizes import Sizes
from exporter.graph.passes.forms.attention import plain_key, plain_scale
from exporter.graph.passes.forms.constants import reshaped_constant
from exporter.graph.passes.forms.gelu import half_first
from exporter.graph.passes.forms.padding import drop_padding, pad_in_convolution
from exporter.graph.passes.forms.pooling import global_pooling, plain_axes
from exporter.graph.passes.forms.reshapes import (
    drop_reshape,
    drop_transpose,
    flatten_as_reshape,
    join_reshapes,
    join_transposes,
    plain_target,
)
from exporter.graph.passes.forms.scalars import cast_like_constant, plain_scalar
from exporter.graph.passes.forms.slices import drop_slice, plain_slice, split_as_slices
from exporter.graph.passes.forms.strided import gather_of_all

_Rewrite = Callable[[ir.Node, Sizes, ir.Graph], bool]
_REWRITES: tuple[_Rewrite, ...] = (
    cast_like_constant,
    reshaped_constant,
    plain_scalar,
    gather_of_all,
    flatten_as_reshape,
    plain_target,
    plain_key,
    drop_reshape,
    join_reshapes,
    join_transposes,
    drop_transpose,
    split_as_slices,
    plain_slice,
    drop_slice,
    drop_padding,
    pad_in_convolution,
    plain_axes,
    global_pooling,
    half_first,
    plain_scale,
)
# Those that may change the last bit of a result. Where results are quantised that is a whole step, so that quantised networks keep theirs.
_ROUNDING = frozenset((global_pooling, plain_scale))
_LEAST_OPSET = 13  # before, axes and sizes were attributes
_ROUNDS = 16  # a rewrite makes room for another; each round infers shapes anew


class OneForm(ir.passes.InPlacePass):
    """Writes what can be said in several ways in one."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place."""
        modified = False
        if model.opset_imports.get("", 0) < _LEAST_OPSET:
            return ir.passes.PassResult(model, modified=False)
        for _ in range(_ROUNDS):
            if not _round(model):
                break
            modified = True
            common.RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=modified)


def _round(model: ir.Model) -> bool:
    sizes = Sizes(model)
    changed = False
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph)
    # A mask that is made large has a fixed size else, and is folded; with free sizes it may be hidden behind a Cast until here.
    for rewrite in (*_REWRITES, *((drop_expand,) if sizes.are_free else ())):
        if quantised and rewrite in _ROUNDING:
            continue
        for node in list(model.graph):
            if node.graph is model.graph and node.domain in ("", "ai.onnx"):
                changed |= rewrite(node, sizes, model.graph)
    return changed
