"""Canonicalisation: two models that compute the same become the same graph, up to names. One pass per file."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes import common

from exporter.graph.passes.batch.local import LocalBatchSize
from exporter.graph.passes.constants import FoldConstants
from exporter.graph.passes.equal import MergeEqual
from exporter.graph.passes.flow import BodiesAsFunctions, NamedBodies
from exporter.graph.passes.forms.one_form import OneForm
from exporter.graph.passes.inputs import UsedInputs
from exporter.graph.passes.known_forms import KnownForms
from exporter.graph.passes.late_operators import SpeltOut
from exporter.graph.passes.left_out import LeftOutInputs
from exporter.graph.passes.opsets import RaisedOpset
from exporter.graph.passes.outputs import OwnOutputs
from exporter.graph.passes.rows import RowsAsVectors
from exporter.graph.passes.simplify import Simplify
from exporter.graph.passes.skips import SplitSkips
from exporter.graph.passes.types import ForeignTypes, NoSequencesAsTensors

_ROUNDS = 8  # a rewrite makes room for another
_MERGE = ir.passes.Sequential(MergeEqual(), common.RemoveUnusedNodesPass(), UsedInputs())


def canonicalise(
    model: ir.Model,
    *,
    whole: bool = True,
    known: KnownForms | None = None,
    check: Callable[[ir.Model], None] = lambda model: None,
) -> ir.Model:
    """Return `model` in canonical form, changed in place.

    Its functions are inlined, and control flow is put into new ones; constants are initializers, the batch size is free, the opset 18 or
    later.

    whole: it is a network, and not a segment of one, whose outputs may be used inside of it, too.
    known: what other graphs became; one that is as they were is not rewritten again, and is not changed either.
    check: is shown what is to be rewritten, and may raise; it looks at no weights.
    After it, equal networks have equal nodes in some topological order, whatever their names.
    """

    def rewrite(given: ir.Model) -> ir.Model:
        check(given)
        return _rewrite(given, whole=whole)

    result: ir.Model = _MERGE(rewrite(model) if known is None else known.rewritten(model, rewrite)).model
    return result


def _rewrite(model: ir.Model, whole: bool) -> ir.Model:
    """Return `model` in canonical form but for what is computed twice, which weights decide. No other pass compares large ones."""
    passes = ir.passes.Sequential(
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveInitializersFromInputsPass(),
        RaisedOpset(),
        FoldConstants(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),  # what those wrote
        BodiesAsFunctions(),
        LeftOutInputs(),
        common.ShapeInferencePass(check_type=False, strict_mode=False),  # producers may leave shapes and dtypes out
        ForeignTypes(),
        SpeltOut(),
        common.RemoveUnusedNodesPass(),
        SplitSkips(),
        LocalBatchSize(),
        # Until nothing more changes: what is read again must be as it was written.
        ir.passes.PassManager([FoldConstants(), Simplify(), OneForm()], steps=_ROUNDS, early_stop=True),
        common.IdentityEliminationPass(),
        *([OwnOutputs()] if whole else []),
        RowsAsVectors(),
        common.AddDefaultAttributesPass(),
        common.RemoveUnusedNodesPass(),
        common.TopologicalSortPass(),
        NamedBodies(),
        NoSequencesAsTensors(),
    )
    result: ir.Model = passes(model).model
    return result


def typed(model: ir.Model) -> ir.Model:
    """Return `model`, which is in canonical form but was read from a file, with the dtypes of all tensors, changed in place."""
    passes = ir.passes.Sequential(
        common.ShapeInferencePass(check_type=False, strict_mode=False), ForeignTypes(), NoSequencesAsTensors()
    )
    result: ir.Model = passes(model).model
    return result
