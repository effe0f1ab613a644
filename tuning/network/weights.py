"""State dicts: reading them from files, putting them into networks whole, and hashing what they hold."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tuning.errors import BadCheckpoint, WrongTensors
from tuning.network.blocks import find_head, is_under
from tuning.network.files import read_tensors

_WRAPPINGS = ("state_dict", "model", "module", "model_state_dict")  # keys under which training scripts keep the state dict
_AVERAGED = (  # and those of its running average, which timm and torchvision evaluate and publish: taken first
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model_state_dict",
    "model_state_dict_ema",
    "ema_model",
    "ema",
)
_COUNTER = "n_averaged"  # torch's AveragedModel counts in a tensor beside the weights
_PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name


@dataclass(frozen=True)
class StateDict:
    """A network's tensors as `file` holds them. taken: under which key, if they are an average. remark: as of Backbone."""

    file: Path
    tensors: dict[str, Tensor]
    taken: str = ""
    remark: str = ""

    @property
    def source(self) -> str:
        """The file's name, and what was taken of it if that is an average."""
        return f"{self.file.name} ({self.taken})" if self.taken else self.file.name

    def explained(self, error: Exception) -> str:
        """Return why these tensors do not fit, with what was taken of the file."""
        return f"{error} {self.remark}".rstrip()


def read_state_dict(path: Path) -> StateDict:
    """Return the state dict in a .safetensors file, or in a .pth, .pt or .bin that torch reads without running pickled code.

    Of a training's checkpoint with averaged weights (EMA) those are taken. Raises BadCheckpoint for a missing, truncated or foreign file.
    """
    if path.suffix == ".safetensors":
        return StateDict(path, read_tensors(path))
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


def _unwrapped(path: Path, content: object) -> StateDict:
    """Return the state dict inside what a training script saved, under the network's own names. Raises BadCheckpoint."""
    taken, remark = "", ""
    while isinstance(content, dict) and (keys := [key for key in (*_AVERAGED, *_WRAPPINGS) if _holds_tensors(content.get(key))]):
        if keys[0] in _AVERAGED:
            taken, others = keys[0], [key for key in keys if key in _WRAPPINGS]
            remark = _which(path, keys[0], others[0]) if others else ""
        elif unknown := [key for key in _AVERAGED if isinstance(content.get(key), dict)]:
            remark = f"{path.name} holds averaged weights ({unknown[0]}) in a form that is not known; {keys[0]} is taken."
        content = content[keys[0]]
    if not isinstance(content, dict) or not _holds_tensors(content):
        raise BadCheckpoint(path, "it holds no state dict (a mapping from names to tensors)")
    tensors = {name: tensor for name, tensor in content.items() if name != _COUNTER}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return StateDict(path, tensors, taken, remark)


def _holds_tensors(content: object) -> bool:
    """Return whether `content` is a state dict, or one in wrappings."""
    if not isinstance(content, dict) or not content:
        return False
    if all(isinstance(value, Tensor) for value in content.values()):
        return True
    return any(_holds_tensors(content.get(key)) for key in (*_AVERAGED, *_WRAPPINGS))


def _which(path: Path, averaged: str, other: str) -> str:
    return (
        f"{path.name} holds averaged weights ({averaged}) beside others ({other}); the averaged ones are taken, as timm does. "
        f"To have the others, save what is under {other!r} as a file of its own."
    )
