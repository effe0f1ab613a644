"""Hand-written graphs, and what a rewrite of them has to keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from exporter.graph.cuts import find_exits
from exporter.graph.passes.batch.local import LocalBatchSize
from exporter.sources.runtime import open_session

BATCHES = (1, 3, 8)


def parse(
    body: str,
    image: str = "float[batch, 3, 4] image",
    logits: str = "float[batch, N] logits",
    weights: str = "",
    opset: int = 18,
) -> ir.Model:
    """Return a model with the nodes of `body`, in ONNX's text form. The output's shape is left to inference but for its rank."""
    initializers = f"<{weights}>" if weights else ""
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["" : {opset}]> net ({image}) => ({logits}) {initializers} {{ {body} }}'
    )


def local(model: ir.Model) -> ir.Model:
    """Return `model` after LocalBatchSize, having checked that it computes the same at several batch sizes."""
    types_known = common.ShapeInferencePass(check_type=False, strict_mode=False)(model).model
    return keeps_results(types_known, LocalBatchSize())


def keeps_results(model: ir.Model, change: Callable[[ir.Model], object], *, optimised: bool = True) -> ir.Model:
    """Return a changed copy of `model` that computes, bit by bit, what `model` computes. optimised: after ONNX Runtime's fusions."""
    changed = model.clone()
    change(changed)
    (image,) = model.graph.inputs
    shape = [dim if isinstance(dim, int) else 1 for dim in image.shape or ()][1:]
    before, after = open_session(model, optimised=optimised), open_session(changed, optimised=optimised)
    for batch in BATCHES:
        rows = np.random.default_rng(batch).standard_normal((batch, *shape)).astype(np.float32)
        for left, right in zip(before.run(None, {image.name: rows}), after.run(None, {image.name: rows}), strict=True):
            np.testing.assert_array_equal(left, right)
    return changed


def operators(model: ir.Model) -> list[str]:
    """Return the operator types in order."""
    return [node.op_type for node in model.graph]


def cuts(model: ir.Model) -> list[str]:
    """Return the names of the cut points."""
    exits = find_exits(list(model.graph), model.graph.inputs, lambda value: True)
    return [str(value.name) for value in (model.graph.inputs[0], *exits)]
