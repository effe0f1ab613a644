"""Whether variants compute the same, before anybody times them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.framework.errors import BenchmarkError

TOLERANCE = 1e-3  # of the largest output: the same arithmetic in another order

Outputs = Sequence[NDArray[Any]]  # by stream


class VariantsDisagree(BenchmarkError):
    """Two ways to compute the same thing that do not."""

    def __init__(self, what: str, variant: str, baseline: str, difference: float) -> None:
        super().__init__(
            f"{what}: {variant!r} differs from {baseline!r} by {difference:.1e} of the largest output where {TOLERANCE:.0e} is allowed, "
            "so that it was not timed."
        )


def difference(found: Outputs, expected: Outputs) -> float:
    """Return the largest difference over the largest expected value of the same stream; infinite for other shapes or what is not finite."""
    if [array.shape for array in found] != [array.shape for array in expected]:
        return float("inf")
    shares = [np.abs(a - b).max() / max(np.abs(b).max(), 1e-30) for a, b in zip(found, expected, strict=True)]
    return float(max(shares)) if np.isfinite(shares).all() else float("inf")


def check(what: str, variants: Mapping[str, Callable[[], Outputs]]) -> float:
    """Return how far the variants are from the first of them at most. Raises VariantsDisagree beyond TOLERANCE."""
    (baseline, run), *others = variants.items()
    expected = run()
    found = {name: difference(run(), expected) for name, run in others}
    for name, share in found.items():
        if not share <= TOLERANCE:
            raise VariantsDisagree(what, name, baseline, share)
    return max(found.values(), default=0.0)
