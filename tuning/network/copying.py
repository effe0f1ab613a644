"""Copies of a network that share what is not going to change."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

from torch import nn

from tuning.network.blocks import is_under

_T = TypeVar("_T")


def copy_sharing(network: nn.Module, changing: Iterable[str]) -> nn.Module:
    """Return a copy of `network` in which the modules and tensors under the paths `changing`, and the modules around them, are new.

    Everything else is the original's: such copies cost little, and frozen modules in eval mode hold no state that could be disturbed.
    """
    return copy.deepcopy(network, shared_memo(network, changing))


def shared_memo(network: nn.Module, changing: Iterable[str]) -> dict[int, object]:
    """Return a memo for `copy.deepcopy` by which the parts of `network` outside `changing` stay the same objects."""
    paths = tuple(changing)
    around = {part for path in paths for part in ancestors(path)}
    memo: dict[int, object] = {}
    for name, module in network.named_modules():
        if name not in around and not is_under(name, paths):
            memo[id(module)] = module
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if not is_under(name, paths):
            memo[id(tensor)] = tensor
    return memo


def ancestors(path: str) -> list[str]:
    """Return the paths of the modules that contain `path`, from the whole network ("") down, itself excluded."""
    parts = path.split(".")
    return [".".join(parts[:depth]) for depth in range(len(parts))]
