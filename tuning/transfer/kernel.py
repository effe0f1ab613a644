"""Adaptive Feature Transfer's measure of how differently two sets of features see the same images (arXiv 2406.07337).

It compares kernels, not features: the student may turn, mirror and scale its features as it likes, and have another number of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

_NORM_FLOOR = 1e-8  # under a row's length: a row that equals the batch's mean has no direction
_SQUARE_FLOOR = 1e-8  # under the square root, whose gradient at 0 is infinite; equal kernels are thus 1e-4 apart


def gram(features: Tensor) -> Tensor:
    """Return the kernel (n, n) of `features` (n, dimensions): cosines between rows, after centring each dimension on the batch.

    Every entry is in [-1, 1]; shifting, scaling or rotating all rows alike changes nothing.
    """
    centred = features - features.mean(0, keepdim=True)
    directions: Tensor = centred / (torch.linalg.vector_norm(centred, dim=1, keepdim=True) + _NORM_FLOOR)
    return directions @ directions.T


def kernel_distance(phi: Tensor, psi: Tensor) -> Tensor:
    """Return the root mean square difference of the kernels of `phi` (n, d) and `psi` (n, e): a scalar, 1e-4 at the least."""
    difference = gram(phi) - gram(psi)
    return torch.sqrt(difference.square().mean() + _SQUARE_FLOOR)
