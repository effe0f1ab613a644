from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn

from tests.nets import tiny_resnet, tiny_vit
from tuning.errors import UnsupportedNetwork
from tuning.network.blocks import find_blocks, find_head, is_under, replace_head


def _on_meta(create: Callable[[], nn.Module]) -> nn.Module:
    """Build a network without memory for its weights: blocks depend on structure alone."""
    with torch.device("meta"):
        return create()


@pytest.mark.parametrize(
    ("name", "count", "first", "last", "head"),
    [
        ("resnet50", 16, "layer1.0", "layer4.2", "fc"),
        ("resnet18", 8, "layer1.0", "layer4.1", "fc"),
        ("vit_tiny_patch16_224", 12, "blocks.0", "blocks.11", "head"),
        ("convnext_atto", 12, "stages.0.blocks.0", "stages.3.blocks.1", "head.fc"),
        ("efficientnet_b0", 16, "blocks.0.0", "blocks.6.0", "classifier"),
        ("mobilenetv3_small_100", 12, "blocks.0.0", "blocks.5.0", "classifier"),
        ("densenet121", 58, "features.denseblock1.denselayer1", "features.denseblock4.denselayer16", "classifier"),
        ("pvt_v2_b0", 8, "stages.0.blocks.0", "stages.3.blocks.1", "head"),
    ],
)
def test_blocks_of_timm(name: str, count: int, first: str, last: str, head: str) -> None:
    network = timm.create_model(name)
    blocks = find_blocks(network)
    assert (len(blocks), blocks[0], blocks[-1]) == (count, first, last)
    assert find_head(network) == (head,)
    assert not any(is_under(path, blocks) for path in find_head(network))


@pytest.mark.parametrize(
    ("name", "count", "first", "head"),
    [
        ("resnet18", 8, "layer1.0", "fc"),
        ("vit_b_16", 12, "encoder.layers.encoder_layer_0", "heads.head"),
        ("efficientnet_b0", 16, "features.1.0", "classifier.1"),
        ("densenet121", 58, "features.denseblock1.denselayer1", "classifier"),
        ("squeezenet1_0", 8, "features.3", "classifier.1"),
        ("alexnet", 4, "features.3", "classifier.6"),
    ],
)
def test_blocks_of_torchvision(name: str, count: int, first: str, head: str) -> None:
    network = _on_meta(lambda: torchvision.models.get_model(name, weights=None))
    blocks = find_blocks(network)
    assert (len(blocks), blocks[0]) == (count, first)
    assert find_head(network) == (head,)


def test_blocks_are_disjoint_modules() -> None:
    for backbone in (tiny_resnet(), tiny_vit()):
        for block in backbone.blocks:
            backbone.network.get_submodule(block)
            assert not is_under(block, set(backbone.blocks) - {block})


def test_new_head_depends_on_its_seed_alone() -> None:
    first, second, other = tiny_resnet(0), tiny_resnet(1), tiny_resnet(0)
    replace_head(first.network, 7, seed=3)
    torch.manual_seed(99)
    replace_head(second.network, 7, seed=3)
    replace_head(other.network, 7, seed=4)
    heads = [backbone.network.get_submodule("fc").weight for backbone in (first, second, other)]
    assert heads[0].shape == (7, 16)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].abs().max() <= 16**-0.5


def test_every_head_of_a_distilled_network_is_replaced() -> None:
    network = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, patch_size=16, embed_dim=32, depth=2, num_heads=2)
    assert replace_head(network, 3, seed=0) == ("head", "head_dist")
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_a_convolution_as_head_is_replaced() -> None:
    network = torchvision.models.get_model("squeezenet1_0", weights=None).eval()
    replace_head(network, 3, seed=0)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_a_network_without_classifier_is_refused() -> None:
    with pytest.raises(UnsupportedNetwork, match="no classifier"):
        replace_head(nn.Sequential(nn.ReLU()), 3, seed=0)
