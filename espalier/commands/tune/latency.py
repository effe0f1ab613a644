"""How long a model takes in the embedded engine."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from serving.engines.embedded import PROVIDERS, session_options

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
