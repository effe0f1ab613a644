"""What few seeds can say: means, deviations, intervals, and paired tests.

Methods are compared on the same draws of pictures, so differences are taken seed by seed. Two tests are shown, as neither is enough
alone: Student's paired t supposes normal differences; the sign-flip permutation test supposes nothing but symmetry, but of n pairs it
cannot give less than 2 / 2^n: 0.25 of three seeds, 0.0625 of five. So a single task never shows anything at 0.05 by it; tasks taken
together do, and then say something of these tasks, not of others.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_EXACT = 16  # pairs up to which all signs are tried
_DRAWS = 100_000


@dataclass(frozen=True)
class Paired:
    """Differences of pairs. low, high: of their mean, 95 % by Student's t; NaN of a single pair, as the p values are."""

    pairs: int
    mean: float
    deviation: float
    low: float
    high: float
    p_student: float
    p_permutation: float


def compare_pairs(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Return how much more `first` is than `second`, pair by pair. Raises ValueError for none, or unequal numbers."""
    differences = np.array([a - b for a, b in zip(first, second, strict=True)])
    count, mean = len(differences), float(np.mean(differences))
    if count < 2:
        return Paired(count, mean, 0.0, math.nan, math.nan, math.nan, math.nan)
    deviation = float(np.std(differences, ddof=1))
    half = float(stats.t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    student = float(stats.ttest_1samp(differences, 0.0).pvalue) if deviation > 0 else math.nan
    return Paired(count, mean, deviation, mean - half, mean + half, student, permutation_p(differences))


def permutation_p(differences: Sequence[float] | np.ndarray) -> float:
    """Return the two-sided p of the sign-flip test of the mean: exact up to 16 pairs, then by 100,000 draws of a fixed seed."""
    values = np.abs(np.asarray(differences, dtype=float))
    observed = abs(float(np.sum(differences))) - 1e-12  # sums in another order must not count as less
    if len(values) <= _EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(values))))
        return float(np.mean(np.abs(signs @ values) >= observed))
    drawn = np.random.default_rng(0).choice((-1.0, 1.0), (_DRAWS, len(values)))
    return (float(np.sum(np.abs(drawn @ values) >= observed)) + 1) / (_DRAWS + 1)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and deviation (n - 1; 0 of a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def agreement(choices: Sequence[Sequence[str]]) -> float:
    """Return the mean Jaccard index of each two of several subsets: 1 where all are one. Of a single subset NaN."""
    pairs = [(set(a), set(b)) for a, b in itertools.combinations(choices, 2)]
    return statistics.fmean(len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs) if pairs else math.nan
