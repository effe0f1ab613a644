"""How the teachers' features guide the student: what is added to the cross entropy, and what of it is learned.

Adaptive Feature Transfer (arXiv 2406.07337) measures how differently two sets of features see the same images. It compares kernels, not
features: the student may turn, mirror and scale its features as it likes, and have another number of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


class KernelMatch(nn.Module):
    """Adaptive Feature Transfer: the student's kernel shall equal that of the teachers' weighted features.

    Each of the teachers' dimensions has a weight in (0, 1), sigmoid of a learned score that starts at 0. The weights are learned
    with the student, so dimensions that do not help can fade.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(dimensions))

    @property
    def weights(self) -> Tensor:
        """The weight of each dimension, (dimensions,)."""
        return self.scores.sigmoid()

    def forward(self, phi: Tensor, psi: Tensor) -> Tensor:
        """Return the distance, a scalar, for the student's features `phi` (n, d) and the teachers' `psi` (n, dimensions)."""
        return kernel_distance(phi, psi * self.weights)


class FeatureRegression(nn.Module):
    """Feature distillation: a learned affine map from the student's features predicts all of the teachers' features.

    The loss is the mean squared error, as in the comparison of arXiv 2406.07337, with one difference: each teacher's features are
    balanced first (tuning.transfer.features). Raw, the same beta would mean a hundred times more for one teacher than for another,
    and the map would spend its steps on the mean. A map that always says 0 then loses 1.
    """

    def __init__(self, student_dimensions: int, dimensions: int) -> None:
        super().__init__()
        self.map = nn.Linear(student_dimensions, dimensions)

    def forward(self, phi: Tensor, psi: Tensor) -> Tensor:
        """Return the error, a scalar, for the student's features `phi` (n, d) and the teachers' balanced `psi` (n, dimensions)."""
        return nn.functional.mse_loss(self.map(phi), psi)
