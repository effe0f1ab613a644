"""A family of tasks: whole torch networks that were made from one backbone, as a team would fine-tune them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tuning.network.blocks import is_under

_NOISE = 0.1  # of each weight that is tuned


@dataclass(frozen=True, eq=False)
class FamilyTask:
    """A task's whole network. kind: equal kinds, equal graphs. tuned: paths of the backbone's modules whose weights are its own."""

    network: nn.Module
    kind: str
    tuned: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class TaskFamily:
    """Tasks by name. what: the networks, in words. inputs: rows for all of them, by name; equal images or texts for every task."""

    name: str
    what: str
    tasks: Mapping[str, FamilyTask] = field(repr=False)
    inputs: Mapping[str, Tensor] = field(repr=False)


MakeFamily = Callable[[], TaskFamily]


@torch.no_grad()
def add_noise(network: nn.Module, paths: Sequence[str], seed: int) -> None:
    """Give the parameters under `paths` weights of their own, in place, as tuning would. Raises ValueError where there are none."""
    generator = torch.Generator().manual_seed(seed)
    found = [value for name, value in network.named_parameters() if is_under(name, tuple(paths))]
    if paths and not found:
        raise ValueError(f"{type(network).__name__} has no weights under {', '.join(paths)}.")
    for value in found:
        value.mul_(1 + _NOISE * torch.rand(value.shape, generator=generator))


@torch.no_grad()
def own_weights(module: nn.Module, seed: int) -> None:
    """Give all weights of `module` random values of its own, in place, BatchNorm's statistics among them."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        if name.endswith(("bias", "running_mean")):
            value.normal_(0, 0.1, generator=generator)
        elif value.dim() <= 1:
            value.uniform_(0.5, 1.5, generator=generator)
        else:
            value.normal_(0, (value.numel() // value.shape[0]) ** -0.5, generator=generator)
