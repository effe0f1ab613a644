"""What Adaptive Feature Transfer has learned about its teachers: the weights of their dimensions, in a few numbers each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class TeacherWeights:
    """The learned weights of one teacher's dimensions, each in (0, 1); all start at 0.5.

    quantiles: least, quartiles, greatest. above_half: share of dimensions whose weight has grown.
    share, share_at_start: of the variance of all teachers' weighted features, what is this teacher's. A teacher whose features are
    small has little say in the kernel whatever its weights are, and its weights hardly move.
    """

    dimensions: int
    mean: float
    quantiles: tuple[float, ...]
    above_half: float
    share: float
    share_at_start: float


@torch.no_grad()
def summarise_weights(weights: Tensor, features: Mapping[str, Tensor]) -> dict[str, TeacherWeights]:
    """Return a summary per teacher. weights: (all dimensions,), in the order of `features`, which are (n, dimensions) each."""
    parts = torch.split(weights.detach(), [rows.shape[1] for rows in features.values()])
    before = {name: float(rows.var(0, correction=0).sum()) for name, rows in features.items()}
    after = {
        name: float((rows.var(0, correction=0) * part.square()).sum())
        for (name, rows), part in zip(features.items(), parts, strict=True)
    }
    return {
        name: TeacherWeights(
            dimensions=len(part),
            mean=float(part.mean()),
            quantiles=tuple(torch.quantile(part, torch.tensor(_QUANTILES)).tolist()),
            above_half=float((part > 0.5).float().mean()),
            share=_share(name, after),
            share_at_start=_share(name, before),
        )
        for name, part in zip(features, parts, strict=True)
    }


def _share(name: str, amounts: Mapping[str, float]) -> float:
    """Return what is `name`'s of all `amounts`, in [0, 1]; nothing of nothing."""
    total = sum(amounts.values())
    return amounts[name] / total if total else 0.0
