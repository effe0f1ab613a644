"""Putting tensors into networks whole, and hashing what networks hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tuning.errors import WrongTensors
from tuning.network.blocks import find_head, is_under


def load_whole(network: nn.Module, tensors: Mapping[str, Tensor], may_differ: Iterable[str] = ()) -> bool:
    """Put `tensors` into `network` in place, every one and no other; return whether what `may_differ` (module paths) was loaded too.

    Tensors under `may_differ` are loaded only if all of them are there with the right shapes. Raises WrongTensors, and then
    `network` is unchanged.
    """
    state, optional = network.state_dict(), tuple(may_differ)
    needed = {name: t for name, t in state.items() if not is_under(name, optional)}
    given = {name: t for name, t in tensors.items() if not is_under(name, optional)}
    check_tensors(needed, given)
    whole = state.keys() == tensors.keys() and all(tensors[name].shape == t.shape for name, t in state.items())
    network.load_state_dict(dict(tensors if whole else given), strict=whole)
    return whole


def check_tensors(needed: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise WrongTensors unless `given` has exactly the names and shapes of `needed`."""
    missing = sorted(needed.keys() - given.keys())
    extra = sorted(given.keys() - needed.keys())
    misshapen = sorted(name for name in needed.keys() & given.keys() if needed[name].shape != given[name].shape)
    if missing or extra or misshapen:
        raise WrongTensors(missing, extra, misshapen)


def hash_weights(network: nn.Module) -> str:
    """Return the sha256 (hex) of everything the network computes with, its head excepted.

    Over the state dict in sorted order: name, dtype, shape, bytes. Without the head, because tasks replace it: the hash does
    not depend on the number of classes.
    """
    head, digest = find_head(network), hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not is_under(name, head):
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
