"""Whether an ONNX graph computes what the torch network computes that it was exported from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
import onnx_ir as ir

from contract.dtypes import Array
from exporter.build.parity import is_rounding
from exporter.build.reference_outputs import TOLERANCE
from exporter.errors import CannotRun
from exporter.sources.runtime import open_session, run_session

# Random inputs, so activations are of ordinary size; float32 sums in another order differ by about 1e-6 of the spread.
_LIMIT = 1e-3


@dataclass(frozen=True)
class Comparison:
    """How far a graph lies from torch, and its own noise: the difference that ONNX Runtime's optimisations alone make.

    Both in units of the largest value that torch answers. error: infinite where the graph does not run or answers another shape.
    noise: None where nobody asked, or the graph does not run without optimisations.
    """

    error: float
    noise: float | None = None

    @property
    def fits(self) -> bool:
        """Return whether the difference is rounding: small, or no more than twice the noise."""
        return self.error <= _LIMIT or is_rounding(self.error, self.noise, TOLERANCE)

    @property
    def remark(self) -> str:
        """Return what to say of a difference that is let through as noise, to be read after the task's name; "" if none is."""
        if self.error <= _LIMIT or not self.fits:
            return ""
        return (
            f"differs as ONNX from torch by {self.error:.1e} of the largest output, which is taken for rounding: ONNX Runtime's "
            f"optimisations alone make a difference of {self.noise:.1e}."
        )

    @property
    def figures(self) -> str:
        """Return what there is to say of a graph that does not fit, in brackets."""
        if not isfinite(self.error) or self.noise is None:
            return ""
        return (
            f" (they differ by {self.error:.2e} of the largest output, where ONNX Runtime's optimisations alone make a difference of "
            f"{self.noise:.2e}; allowed: {_LIMIT:.0e}, or twice the latter up to {TOLERANCE:g})"
        )


def compare(model: ir.Model, inputs: Mapping[str, Array], expected: Sequence[Array]) -> Comparison:
    """Return how `model` compares with `expected`, which torch answers to `inputs`, an array for each output; the worst one counts."""
    found = _run(model, inputs, optimised=True)
    if found is None or [output.shape for output in found] != [output.shape for output in expected]:
        return Comparison(inf)
    error = _apart(found, expected, expected)
    if error <= _LIMIT:
        return Comparison(error)
    plain = _run(model, inputs, optimised=False)
    return Comparison(error, None if plain is None else _apart(plain, found, expected))


def _apart(ones: Sequence[Array], others: Sequence[Array], expected: Sequence[Array]) -> float:
    """Return the largest difference of all outputs, each in units of the largest value that is expected of it; NaN if one is."""
    apart = [
        _largest(one.astype(np.float64) - other.astype(np.float64)) / max(_largest(scale), 1e-6)
        for one, other, scale in zip(ones, others, expected, strict=True)
    ]
    return float(np.max(apart))


def _largest(values: Array) -> float:
    return float(np.abs(values.astype(np.float64)).max())


def _run(model: ir.Model, inputs: Mapping[str, Array], *, optimised: bool) -> Sequence[Array] | None:
    """Return the answers, None where there is none: a graph that was traced for a head of another size need not run."""
    try:
        return run_session(open_session(model, optimised=optimised), inputs, "the network")
    except CannotRun:
        return None
