from __future__ import annotations

import pytest
import torch
from torch import nn

from tuning.training.macs import counted_macs


def macs(layer: nn.Module, gradient_of_input: bool) -> int:
    image = torch.ones(2, 8, 6, 6, requires_grad=gradient_of_input)
    with counted_macs() as count:
        layer(image).sum().backward()
    return count()


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("gradient_of_input", [False, True])
def test_a_convolution_takes_as_much_for_each_gradient_as_forward(groups: int, gradient_of_input: bool) -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    forward = 2 * 36 * 8 * (8 // groups) * 9
    assert macs(layer, gradient_of_input) == forward * (3 if gradient_of_input else 2)


def test_a_transposed_convolution_likewise() -> None:
    layer = nn.ConvTranspose2d(8, 4, 2, stride=2)
    assert macs(layer, True) == 3 * 2 * 36 * 8 * 4 * 4


def test_frozen_weights_take_nothing() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8).requires_grad_(False)
    assert macs(layer, True) == 2 * (2 * 36 * 8 * 9)
