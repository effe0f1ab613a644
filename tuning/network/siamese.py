"""Siamese SubTuning (arXiv 2302.06354): the head sees the tuned features and the frozen ones side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuning.errors import UnsupportedNetwork
from tuning.network.blocks import find_head, new_linear
from tuning.network.copying import copy_sharing


class Siamese(nn.Module):
    """tuned, frozen: networks without their heads, images to features (n, d). head: maps both, side by side, to logits.

    No gradient reaches `frozen`, which stays in eval mode whatever mode the whole is put into.
    """

    def __init__(self, tuned: nn.Module, frozen: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.tuned = tuned
        self.frozen = frozen.eval().requires_grad_(False)
        self.head = head

    def train(self, mode: bool = True) -> Siamese:
        """Set the mode of all but the frozen half."""
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of normalised images."""
        return self.head(torch.cat([self.tuned(image), self.frozen(image)], dim=1))  # type: ignore[no-any-return]


def make_siamese(tuned: nn.Module, frozen: nn.Module, classes: int, seed: int, image: Tensor) -> Siamese:
    """Return the Siamese network of a network to tune, changed in place, and a frozen one, left as it is.

    image: one normalised image, (1, 3, height, width), to learn the features' size from. Raises UnsupportedNetwork.
    """
    paths = find_head(tuned)
    if len(paths) != 1:
        raise UnsupportedNetwork(f"A Siamese head needs a network with one classifier, not {len(paths)}.")
    bare = copy_sharing(frozen, paths)
    for network in (tuned, bare):
        network.set_submodule(paths[0], nn.Identity())
    with torch.no_grad():
        features = bare(image)
    if features.ndim != 2:
        raise UnsupportedNetwork(
            f"A Siamese head needs a vector of features per image; this network has {tuple(features.shape[1:])}."
        )
    return Siamese(tuned, bare, new_linear(2 * features.shape[1], classes, seed))
