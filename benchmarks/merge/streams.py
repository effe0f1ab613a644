"""Tasks that tune the same parts of a network: streams that part behind a frozen prefix and come together in a frozen suffix."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

Subset = tuple[str, ...]  # of the names of neighbouring parts


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
