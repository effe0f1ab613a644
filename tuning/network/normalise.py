"""The arithmetic between image and network. The exporter wraps networks with this very module: training and serving agree to the bit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contract.preprocessing import Preprocessing


class Normalise(nn.Module):
    """Map uint8 images (n, height, width, 3) to float32 (n, 3, height, width): value / 255, minus mean, over std.

    One multiply and one add per value; the constants are computed in float64 and rounded once.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64).view(1, 3, 1, 1)
        std = torch.tensor(preprocessing.std, dtype=torch.float64).view(1, 3, 1, 1)
        self.register_buffer("scale", (1 / (255 * std)).to(torch.float32))
        self.register_buffer("shift", (-mean / std).to(torch.float32))

    def forward(self, image: Tensor) -> Tensor:
        """Return the network's input for uint8 `image` (n, height, width, 3)."""
        # Contiguous before the cast: the transposition then moves bytes, not floats.
        return image.permute(0, 3, 1, 2).contiguous().to(torch.float32) * self.scale + self.shift
