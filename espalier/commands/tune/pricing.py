"""What serving a subset costs, from the exporter and the engine to the search: tuning knows neither. To be imported when it is needed."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from espalier.console import console
from exporter.pricing.torch import open_pricing
from serving.engines.embedded import PROVIDERS, session_options
from tuning.network.backbone import Backbone
from tuning.search.score import CostOf, SubsetCost

_WARMUP, _ROUNDS = 2, 9


def measure_ms(model: ir.Model) -> float:
    """Return the milliseconds of one run of `model` on one row of zeros: the median of several after warming up.

    The session has the options of the embedded engine, so that it takes all cores of this process.
    """
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), session_options(), providers=list(PROVIDERS))
    rows = {str(value.name): np.zeros(*_shape_and_dtype(value)) for value in model.graph.inputs}
    runs_ms = []
    for _ in range(_WARMUP + _ROUNDS):
        started = time.perf_counter()
        session.run(None, rows)
        runs_ms.append((time.perf_counter() - started) * 1000)
    return median(runs_ms[_WARMUP:])


def _shape_and_dtype(value: ir.Value) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    dims = [dim for dim in value.shape or () if isinstance(dim, int)]  # all but the batch
    dtype = (value.dtype or ir.DataType.FLOAT).numpy()
    return (1, *dims), dtype


def open_costs(backbone: Backbone, given: Path | None, classes: int, latency: bool) -> CostOf:
    """Return the cost of every subset for a task of `classes` classes, as a function that remembers. latency: measured, too.

    given: a repository that the task would be added to; None: the backbone alone is served. The network is exported once, now.
    """
    with console.status("Exporting the backbone, to price subsets"):
        pricing = open_pricing(backbone, given, classes=classes, measure=measure_ms if latency else None)
    whole_bytes = sum(tensor.nbytes for tensor in backbone.network.parameters())
    known: dict[tuple[str, ...], SubsetCost] = {}

    def cost(subset: tuple[str, ...]) -> SubsetCost:
        if subset not in known:
            added = pricing.price(subset)
            shares = (added.macs / pricing.macs, added.weight_bytes / whole_bytes)
            known[subset] = SubsetCost(added.macs, added.weight_bytes, *shares, added.latency_ms, added.fork)
        return known[subset]

    return cost
