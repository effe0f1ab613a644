from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from tests.nets import tiny_resnet, tiny_vit
from tuning.network.blocks import find_blocks, find_head
from tuning.network.frozen_prefix import split_network


def _images(size: int = 32) -> Tensor:
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("block", ["layer1.0", "layer2.1", "layer4.1"])
@torch.no_grad()
def test_halves_equal_the_whole(block: str) -> None:
    network = tiny_resnet().network
    split = split_network(network, [block, "fc"], _images())
    assert split is not None
    features = split.prefix(_images())
    torch.testing.assert_close(split.suffix(*features), network(_images()))


@torch.no_grad()
def test_the_suffix_starts_at_the_first_tuned_block() -> None:
    network = tiny_resnet().network
    split = split_network(network, ["layer3.0", "layer2.1", "fc"], _images())
    assert split is not None
    names = {name.removeprefix("network.") for name, _ in split.suffix.named_modules()}
    assert {"layer2.1", "layer3.0", "layer4.1", "fc"} <= names
    assert not {"conv1", "layer1", "layer2.0"} & names


@torch.no_grad()
def test_a_linear_probe_keeps_the_heads_input() -> None:
    split = split_network(tiny_resnet().network, ["fc"], _images())
    assert split is not None
    (features,) = split.prefix(_images())
    assert features.shape == (4, 16)


def test_both_halves_share_the_networks_modules() -> None:
    network = tiny_vit().network
    split = split_network(network, ["blocks.1", "head"], _images())
    assert split is not None
    assert split.suffix.get_submodule("network.blocks.1") is network.get_submodule("blocks.1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["convnext_atto", "efficientnet_b0", "mobilenetv3_small_100", "regnety_002", "densenet121", "deit_tiny_patch16_224"]
)
@torch.no_grad()
def test_usual_timm_networks_can_be_split(name: str) -> None:
    size = 224 if "deit" in name else 64
    network = timm.create_model(name, num_classes=3).eval()
    blocks = find_blocks(network)
    split = split_network(network, (blocks[len(blocks) // 2], *find_head(network)), _images(size))
    assert split is not None
    torch.testing.assert_close(split.suffix(*split.prefix(_images(size))), network(_images(size)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_torchvision_vit_can_be_split() -> None:
    network = torchvision.models.VisionTransformer(32, 8, 3, 2, 32, 64, num_classes=3).eval()
    split = split_network(network, ("encoder.layers.encoder_layer_1", *find_head(network)), _images())
    assert split is not None


class _Flat(nn.Module):
    """A linear body and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image))  # type: ignore[no-any-return]


class _Branching(_Flat):
    """Decides by values: no trace can hold it."""

    def forward(self, image: Tensor) -> Tensor:
        features = self.body(image)
        return self.head(features if features.sum() > 0 else -features)  # type: ignore[no-any-return]


class _Counting(_Flat):
    """Passes the batch size itself across the split: true for one batch, false for the next."""

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image)) * image.shape[0]  # type: ignore[no-any-return]


class _Mixing(_Flat):
    """Subtracts the mean over the batch: the result for an image depends on its company."""

    def forward(self, image: Tensor) -> Tensor:
        features = self.body(image)
        return self.head(features - features.mean(0))  # type: ignore[no-any-return]


def test_a_flat_network_is_split() -> None:
    assert split_network(_Flat().eval(), ["head"], _images()) is not None


@pytest.mark.parametrize("network", [_Branching(), _Counting(), _Mixing()], ids=lambda network: type(network).__name__)
def test_what_cannot_be_split_soundly_is_not(network: nn.Module) -> None:
    assert split_network(network.eval(), ["head"], _images()) is None
