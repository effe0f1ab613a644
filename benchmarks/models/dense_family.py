"""Three decoders and four classifiers on one ResNet, with random weights: fine for time and memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.models.blocks import BlockFamily, BlockNetwork
from benchmarks.models.families import POOL, parts_of
from benchmarks.models.synthetic import randomise_norms

_CLASSES, _KINDS, _ANCHORS = 100, 21, 6


@dataclass(frozen=True)
class DenseSize:
    """A timm ResNet. size: pixels of the square image. width: channels of the decoders."""

    network: str = "resnet50"
    size: int = 224
    width: int = 128
    options: dict[str, Any] = field(default_factory=dict)


def dense_family(size: DenseSize) -> BlockFamily:
    """Return seven tasks: a mask, a depth and boxes on the frozen levels, two classifiers on them, and two that tune the last block."""
    torch.manual_seed(0)
    network = timm.create_model(size.network, num_classes=0, **size.options)
    randomise_norms(network)
    parts = {name: part for name, part in parts_of(network).items() if name != POOL}
    names, blocks = list(parts), [_One(part) for part in parts.values()]
    # The last block of each stage: the levels.
    taps = [place for place, name in enumerate(names) if names[place + 1 : place + 2] != [f"{_stage(name)}.{_number(name) + 1}"]][
        1:
    ]
    channels = _channels(blocks, taps, size.size)
    pyramids = {"mask": _Pyramid(channels, size.width, _KINDS), "depth": _Pyramid(channels, size.width, 1)}
    decoders: dict[str, nn.Module] = {**pyramids, "boxes": _Boxes(channels, size.width)}
    networks = {name: BlockNetwork(blocks, taps, head) for name, head in decoders.items()}
    for number in range(4):
        own = blocks if number < 2 else [*blocks[:-1], _tuned(blocks[-1])]
        networks[f"classes-{number}"] = BlockNetwork(own, taps[-1:], _Classes(channels[-1]))
    for whole in networks.values():
        whole.eval().requires_grad_(False)
    kinds = {name: "pyramid" if name in pyramids else name.partition("-")[0] for name in networks}
    return BlockFamily(networks, kinds, {"image": torch.randn(1, 3, size.size, size.size)}, {})


class _One(nn.Module):
    """A block of one tensor, as BlockNetwork takes it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.block(image),)


class _Levels(nn.Module):
    """A feature pyramid: lateral convolutions, added from the smallest level up, and one more on each."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([nn.Conv2d(size, width, 1) for size in channels])
        self.smooth = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in channels])

    def forward(self, *levels: Tensor) -> list[Tensor]:
        lateral = [layer(level) for layer, level in zip(self.lateral, levels, strict=True)]
        for place in range(len(lateral) - 2, -1, -1):
            larger = functional.interpolate(lateral[place + 1], size=lateral[place].shape[-2:], mode="nearest")
            lateral[place] = lateral[place] + larger
        return [layer(level) for layer, level in zip(self.smooth, lateral, strict=True)]


class _Pyramid(nn.Module):
    """A number, or a score of each kind, for each place of the largest level."""

    def __init__(self, channels: Sequence[int], width: int, kinds: int) -> None:
        super().__init__()
        self.levels, self.last = _Levels(channels, width), nn.Conv2d(width, kinds, 1)

    def forward(self, *levels: Tensor) -> Tensor:
        first, *others = self.levels(*levels)
        for level in others:
            first = first + functional.interpolate(level, size=first.shape[-2:], mode="bilinear")
        answer: Tensor = self.last(torch.relu(first))
        return answer


class _Boxes(nn.Module):
    """A box and scores for each anchor of all levels but the largest, before any threshold: (batch, anchors, 4 + kinds)."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.levels, self.tower = _Levels(channels, width), nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, _ANCHORS * (4 + _KINDS), 1)

    def forward(self, *levels: Tensor) -> Tensor:
        found = [self.last(torch.relu(self.tower(level))).flatten(2) for level in self.levels(*levels)[1:]]
        together = torch.cat(found, 2)
        return together.reshape(together.shape[0], _ANCHORS, 4 + _KINDS, -1).permute(0, 1, 3, 2).flatten(1, 2)


class _Classes(nn.Module):
    """Scores from the mean of the last level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.last = nn.Linear(channels, _CLASSES)

    def forward(self, level: Tensor) -> Tensor:
        answer: Tensor = self.last(level.mean((-2, -1)))
        return answer


def _tuned(block: nn.Module) -> nn.Module:
    own = copy.deepcopy(block)
    with torch.no_grad():
        for value in own.parameters():
            value.mul_(1 + 0.1 * torch.rand_like(value))
    return own


def _stage(name: str) -> str:
    return name.partition(".")[0]


def _number(name: str) -> int:
    return int(name.partition(".")[2] or 0)


@torch.no_grad()
def _channels(blocks: Sequence[nn.Module], taps: Sequence[int], size: int) -> list[int]:
    state, found = (torch.zeros(1, 3, size, size),), []
    for place, block in enumerate(blocks):
        state = block.eval()(*state)
        if place in taps:
            found.append(state[0].shape[1])
    return found
