from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.layers import GluMlp
from torch import Tensor, nn

from tests.nets import tiny_resnet, tiny_vit
from tuning.errors import BadOptions, UnsupportedNetwork
from tuning.network.backbone import Backbone
from tuning.pruning.channels import cut_channels


class Block(nn.Module):
    """A residual block: only `hidden` channels are its own."""

    def __init__(self, hidden: int = 4, groups: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(6, hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.middle = nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups)
        self.last = nn.Conv2d(hidden, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.middle(self.norm(self.first(x)).relu()).relu())


class Net(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def _net(*blocks: nn.Module) -> Net:
    net, generator = Net(*blocks).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(0.5, 1.0, generator=generator)
    return net


IMAGE = torch.full((1, 3, 8, 8), 0.5)


@torch.no_grad()
def test_the_channels_of_the_smallest_weights_go() -> None:
    net = _net(Block(), Block())
    block = net.blocks[1]
    for channel in (0, 2):
        for tensor in (block.first.weight[channel], block.norm.weight[channel], block.middle.weight[:, channel]):
            tensor.mul_(0.01)
    narrow, cuts = cut_channels(net, ["blocks.1"], 0.5, IMAGE)
    assert {(cut.layer, cut.channels, cut.kept) for cut in cuts} == {("blocks.1.first", 4, 2), ("blocks.1.middle", 4, 2)}
    kept = narrow.get_submodule("blocks.1")
    assert torch.equal(kept.first.weight, block.first.weight[[1, 3]])
    assert torch.equal(kept.first.bias, block.first.bias[[1, 3]])
    assert torch.equal(kept.norm.running_var, block.norm.running_var[[1, 3]])
    assert kept.middle.weight.shape == (2, 2, 3, 3)
    assert kept.last.weight.shape == (6, 2, 1, 1)
    assert torch.equal(kept.last.bias, block.last.bias)


@torch.no_grad()
def test_nothing_outside_the_blocks_changes_and_the_given_network_neither() -> None:
    net = _net(Block(), Block())
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    narrow, _ = cut_channels(net, ["blocks.1"], 0.5, IMAGE)
    for name, tensor in before.items():
        assert torch.equal(net.state_dict()[name], tensor), name
        if not name.startswith("blocks.1."):
            assert torch.equal(narrow.state_dict()[name], tensor), name
    assert not any(parameter.requires_grad for parameter in narrow.parameters())


@torch.no_grad()
def test_in_grouped_convolutions_every_group_loses_the_same() -> None:
    net = _net(Block(hidden=8, groups=2))
    block = net.blocks[0]
    block.first.weight[[1, 2, 5, 6]] *= 0.01  # the second and third of each group of four
    block.middle.weight[:, [1, 2]] *= 0.01
    narrow, _ = cut_channels(net, ["blocks.0"], 0.5, IMAGE)
    kept = narrow.get_submodule("blocks.0")
    assert torch.equal(kept.first.weight, block.first.weight[[0, 3, 4, 7]])
    assert (kept.middle.groups, kept.middle.weight.shape) == (2, (4, 2, 3, 3))


@torch.no_grad()
@pytest.mark.parametrize(
    ("make", "block", "first", "second"),
    [(tiny_resnet, "layer3.0", "conv1", "conv2"), (tiny_vit, "blocks.1", "mlp.fc1", "mlp.fc2")],
)
def test_a_cut_network_is_the_whole_one_with_those_channels_unheard(
    make: Callable[[], Backbone], block: str, first: str, second: str
) -> None:
    """The layer after the cut channels, in the whole network, with zeros where it hears them: the same result."""
    backbone = make()
    image = torch.rand(2, 3, 32, 32)
    narrow, (cut,) = cut_channels(backbone.network, [block], 0.5, image[:1])
    assert (cut.layer, cut.kept * 2) == (f"{block}.{first}", cut.channels)
    whole = backbone.network.get_submodule(f"{block}.{first}").weight
    left = narrow.get_submodule(f"{block}.{first}").weight
    kept = [row for row in range(len(whole)) if any(torch.equal(whole[row], other) for other in left)]
    assert len(kept) == len(left)
    listening = backbone.network.get_submodule(f"{block}.{second}").weight
    before = listening.clone()
    deaf = [row for row in range(len(whole)) if row not in kept]
    listening[:, deaf] = 0
    torch.testing.assert_close(narrow(image), backbone.network(image))
    listening.copy_(before)
    assert not torch.allclose(narrow(image), backbone.network(image))


def test_at_least_one_channel_is_kept() -> None:
    narrow, _ = cut_channels(_net(Block()), ["blocks.0"], 0.99, IMAGE)
    assert narrow.get_submodule("blocks.0").first.weight.shape[0] == 1


def test_a_share_of_no_channel_is_refused() -> None:
    with pytest.raises(BadOptions, match=r"0\.1 cuts no channel"):
        cut_channels(_net(Block()), ["blocks.0"], 0.1, IMAGE)


def test_a_block_of_one_layer_has_nothing_inside() -> None:
    with pytest.raises(UnsupportedNetwork, match="nothing to prune: inside the tuned blocks no layer"):
        cut_channels(_net(nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)), ["blocks.0", "blocks.1"], 0.5, IMAGE)


def test_gated_layers_are_left_alone() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(6, 8, 1), nn.Conv2d(4, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            value, gate = self.first(x).chunk(2, 1)
            return x + self.last(value * gate)

    for module in (Gated(), GluMlp(6, 8, 6, use_conv=True)):
        with pytest.raises(UnsupportedNetwork, match="nothing to prune"):
            cut_channels(_net(module), ["blocks.0"], 0.5, IMAGE)


class PixelAttention(nn.Module):
    """One head over pixels, its values a convolution of their own: they could be cut, but heads are not."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.out = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.query(x).mean(1, keepdim=True).sigmoid()
        return x + self.out(weights * self.value(x))


def test_attention_is_left_alone() -> None:
    _, cuts = cut_channels(_net(nn.Sequential(PixelAttention(), Block())), ["blocks.0"], 0.5, IMAGE)
    assert {cut.layer for cut in cuts} == {"blocks.0.1.first", "blocks.0.1.middle"}
    with pytest.raises(UnsupportedNetwork, match="nothing to prune"):
        cut_channels(tiny_vit().network, ["blocks.1.attn"], 0.5, torch.zeros(1, 3, 32, 32))


def test_a_network_that_counts_on_its_width_is_refused() -> None:
    class Counting(Block):
        def forward(self, x: Tensor) -> Tensor:
            if self.last.weight.shape[1] != 4:
                raise RuntimeError("not my width")
            return super().forward(x)

    with pytest.raises(UnsupportedNetwork, match="counts on the number that it was built with"):
        cut_channels(_net(Counting()), ["blocks.0"], 0.5, IMAGE)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_a_share_outside_of_0_to_1_is_refused(ratio: float) -> None:
    with pytest.raises(BadOptions, match="must lie between 0 and 1"):
        cut_channels(_net(Block()), ["blocks.0"], ratio, IMAGE)
