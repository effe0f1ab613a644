"""Where two networks really fork: found by running them, without any digest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.sources.runtime import open_session

Array = NDArray[np.generic]


def run_taps(model: ir.Model, taps: Sequence[str], rows: Array) -> list[Array]:
    """Return the values of the tensors `taps` of `model` when its one input is `rows`. `model` is left as it is."""
    clone = model.clone()
    graph = clone.graph
    values = {value.name: value for node in graph for value in node.outputs}
    known = {output.name for output in graph.outputs}
    graph.outputs.extend(values[tap] for tap in taps if tap not in known)
    session = open_session(clone)
    return list(session.run(list(taps), {graph.inputs[0].name: rows}))


def count_equal(left: Sequence[Array], right: Sequence[Array]) -> int:
    """Return how many tensors from the start on have the same values bit by bit: the tap after them is the first that differs."""
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if not np.array_equal(a, b):
            return index
    return min(len(left), len(right))
