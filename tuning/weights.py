"""State dicts: reading them from files, putting them into networks whole, and hashing what they hold."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tuning.blocks import find_head, is_under
from tuning.errors import BadCheckpoint, WrongTensors
from tuning.files import read_tensors

_WRAPPINGS = ("state_dict", "model", "module", "model_state_dict")  # keys under which training scripts keep the state dict
_PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a .safetensors file, or in a .pth, .pt or .bin that torch reads without running pickled code.

    Raises BadCheckpoint for a missing, truncated or foreign file.
    """
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if path.suffix not in (".pth", ".pt", ".bin"):
        raise BadCheckpoint(path, "a checkpoint is a .safetensors file, or a .pth, .pt or .bin written by torch.save")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of foreign pickles before it refuses them
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadCheckpoint(path, "there is no such file") from error
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        reason = "torch cannot read it as plain tensors: it is truncated, or holds pickled code, which is refused"
        raise BadCheckpoint(path, reason) from error
    return _unwrapped(path, content)


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


def _unwrapped(path: Path, content: object) -> dict[str, Tensor]:
    """Return the state dict inside what a training script saved."""
    for key in _WRAPPINGS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise BadCheckpoint(path, "it holds no state dict (a mapping from names to tensors)")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in content):
            content = {name.removeprefix(prefix): t for name, t in content.items()}
    return content
