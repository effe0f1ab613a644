from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.nets import tiny_resnet, tiny_vit
from tuning.network.blocks import is_under
from tuning.network.copying import ancestors, copy_sharing


def test_ancestors_go_from_the_whole_down() -> None:
    assert ancestors("layer1.0.conv1") == ["", "layer1", "layer1.0"]
    assert ancestors("cls_token") == [""]


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict((*network.named_parameters(), *network.named_buffers()))


@pytest.mark.parametrize(
    ("network", "changing"),
    [
        (tiny_resnet().network, ("layer2.1", "fc")),
        (tiny_resnet().network, ("layer2.0.downsample.1", "layer4.1.conv1.weight")),
        (tiny_vit().network, ("cls_token", "blocks.1.attn", "head")),
        (tiny_vit().network, ()),
    ],
)
@torch.no_grad()
def test_what_changes_is_new_and_the_rest_is_the_same(network: nn.Module, changing: tuple[str, ...]) -> None:
    copied = copy_sharing(network, changing)
    before = {name: t.clone() for name, t in _tensors(network).items()}
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = network(image)
    assert torch.equal(copied(image), expected)
    for name, tensor in _tensors(copied).items():
        assert (tensor is _tensors(network)[name]) != is_under(name, changing), name
        if is_under(name, changing) and tensor.is_floating_point():
            tensor.add_(1)
    for name, module in copied.named_modules():
        if is_under(name, changing):
            assert module is not network.get_submodule(name)
            module.train()
    assert all(torch.equal(tensor, before[name]) for name, tensor in _tensors(network).items())
    assert not any(module.training for module in network.modules())
    assert torch.equal(network(image), expected)
    assert not changing or not torch.equal(copied.eval()(image), expected)


def test_a_replaced_part_is_replaced_in_the_copy_alone() -> None:
    network = tiny_resnet().network
    copied = copy_sharing(network, ("layer3.0.conv1",))
    copied.set_submodule("layer3.0.conv1", nn.Identity())
    assert isinstance(network.get_submodule("layer3.0.conv1"), nn.Conv2d)
    assert copied.get_submodule("layer3.1") is network.get_submodule("layer3.1")
