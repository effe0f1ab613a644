"""A timm ResNet as a chain of parts, and the tasks that tune some of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from benchmarks.models.families import POOL, STEM

Subset = tuple[str, ...]


def single_blocks(parts: Sequence[str]) -> tuple[Subset, ...]:
    """Return each block alone: 16 of a ResNet-50."""
    return tuple((name,) for name in parts if name not in (STEM, POOL))


def pairs_within_stages(parts: Sequence[str]) -> tuple[Subset, ...]:
    """Return the pairs of neighbouring blocks of the same stage: 12 of a ResNet-50."""
    blocks = [name for name in parts if name not in (STEM, POOL)]
    return tuple(pair for pair in pairwise(blocks) if pair[0].partition(".")[0] == pair[1].partition(".")[0])


def tuned_copy(module: nn.Module, seed: int) -> nn.Module:
    """Return a copy whose weights and statistics have 1 % of noise, as if it had been tuned."""
    copied = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in copied.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.01 * torch.randn(tensor.shape, generator=generator))
    return copied.eval()


@dataclass(frozen=True)
class Streams:
    """Tasks that tune the same neighbouring parts: what is frozen before and after is one module for all of them."""

    prefix: nn.Module
    tuned: tuple[tuple[nn.Module, ...], ...]  # by stream
    suffix: nn.Module
    heads: tuple[nn.Module, ...]

    @property
    def count(self) -> int:
        """Return the number of streams."""
        return len(self.heads)


def make_streams(parts: Mapping[str, nn.Module], subset: Subset, head: nn.Linear, count: int) -> Streams:
    """Return `count` tasks on the network of `parts` and `head`. The first is the backbone's own; each of the others has tuned `subset`."""
    names = list(parts)
    first, last = names.index(subset[0]), names.index(subset[-1])
    tuned = [parts[name] for name in names[first : last + 1]]
    others = [tuple(tuned_copy(block, 100 * stream + place) for place, block in enumerate(tuned)) for stream in range(1, count)]
    return Streams(
        nn.Sequential(*(parts[name] for name in names[:first])),
        (tuple(tuned), *others),
        nn.Sequential(*(parts[name] for name in names[last + 1 :])),
        (head, *(tuned_copy(head, seed) for seed in range(1, count))),
    )
