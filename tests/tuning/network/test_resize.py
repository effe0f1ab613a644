from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tuning.network.resize import is_depthwise, resize_layers

width = st.integers(1, 6)


def _block(hidden: int) -> nn.Sequential:
    """Every kind of layer that can be resized, `hidden` channels passed between them."""
    return nn.Sequential(
        nn.Conv2d(4, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),  # depthwise
        nn.Conv2d(hidden, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, hidden),
        nn.LayerNorm(hidden),
        nn.Linear(hidden, 4, bias=False),
    )


@settings(max_examples=10, deadline=None)
@given(old=width, new=width)
def test_a_block_takes_the_tensors_of_a_narrower_one(old: int, new: int) -> None:
    wide, narrow = nn.ModuleDict({"block": _block(max(old, new))}), nn.ModuleDict({"block": _block(min(old, new))})
    changed = resize_layers(wide, narrow.state_dict(), ["block"])
    assert bool(changed) == (old != new)
    wide.load_state_dict(narrow.state_dict())
    image = torch.rand(2, 4, 3, 3)
    assert torch.equal(wide.eval()["block"](image), narrow.eval()["block"](image))
    assert str(wide) == str(narrow)  # what layers say of themselves: channels, groups, features


def test_grouped_convolutions_keep_their_groups() -> None:
    wide, narrow = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2)), nn.Sequential(nn.Conv2d(4, 8, 3, groups=2))
    assert resize_layers(wide, narrow.state_dict(), ["0"]) == ("0",)
    assert str(wide) == str(narrow)


def test_a_norm_without_weights_is_measured_by_its_statistics() -> None:
    wide, narrow = nn.Sequential(nn.BatchNorm2d(5, affine=False)), nn.Sequential(nn.BatchNorm2d(2, affine=False))
    assert resize_layers(wide, narrow.state_dict(), ["0"]) == ("0",)
    wide.load_state_dict(narrow.state_dict())
    assert str(wide) == str(narrow)


@pytest.mark.parametrize("shape", [(9, 4, 3, 3), (8, 5, 3, 3), (8, 4, 1, 1), (8, 4), (8, 4, 3, 3), (0, 4, 3, 3)])
def test_wider_empty_or_otherwise_different_tensors_change_nothing(shape: tuple[int, ...]) -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 3))
    assert resize_layers(network, {"0.weight": torch.zeros(shape)}, ["0"]) == ()
    assert network[0].weight.shape == (8, 4, 3, 3)


def test_only_what_is_under_the_paths_changes() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    narrow = {"0.weight": torch.zeros(2, 4), "1.weight": torch.zeros(4, 2)}
    assert resize_layers(network, narrow, ["1"]) == ("1",)
    assert network[0].weight.shape == (4, 4)


def test_one_channel_is_not_depthwise() -> None:
    assert is_depthwise(nn.Conv2d(3, 3, 3, groups=3))
    assert not is_depthwise(nn.Conv2d(1, 1, 3))
    assert not is_depthwise(nn.Conv2d(4, 8, 3, groups=4))
