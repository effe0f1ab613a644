"""State dicts in files as training scripts write them: under keys, averaged, with names of their own, sparse."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contract.references import WEIGHTS, is_adapter
from tuning.errors import BadCheckpoint
from tuning.network.files import read_tensors
from tuning.network.numpy_scalars import as_globals
from tuning.network.prefixes import WantedNames, take_off_prefixes

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
    "params_ema",
    "net_ema",
)
_COUNTER = "n_averaged"  # torch's AveragedModel counts in a tensor beside the weights
_ALONE = "save the weights alone, by torch.save(network.state_dict(), FILE)"


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


def read_state_dict(path: Path, network: nn.Module | None = None) -> StateDict:
    """Return the state dict in a .safetensors file, or in a .pth, .pth.tar, .pt, .bin or .ckpt that torch reads without running code.

    network: what it is to fit; it decides what is taken off the names, and which of several state dicts is meant. Nothing of its values is
    taken but BatchNorm's counters of batches where the file has none, as 0. Of a training's checkpoint with averaged weights (EMA) those
    are taken. Raises BadCheckpoint for a missing, truncated or foreign file, and for tensors without names or data.
    """
    wanted = WantedNames.of(network) if network is not None else None
    content = _read(path)
    found = _Finder(path, wanted).find(content)
    if found is None:
        raise BadCheckpoint(path, _nothing(content))
    tensors = {
        name: _dense(path, name, found.tensors[old]) for name, old in take_off_prefixes(found.tensors, wanted).names.items()
    }
    if wanted is not None:
        tensors |= {name: torch.tensor(0) for name in wanted.counters.difference(tensors)}
    return replace(found, tensors=tensors)


class _Finder:
    """Finds the state dict in what a training script saved. wanted: the names that it should have; None: any."""

    def __init__(self, path: Path, wanted: WantedNames | None) -> None:
        self._path = path
        self._wanted = wanted

    def find(self, content: object) -> StateDict | None:
        """Return the state dict in `content`, under the names in the file, None if there is none. Raises BadCheckpoint."""
        if not isinstance(content, dict):
            return None
        if _is_state_dict(content):
            return self._named({name: tensor for name, tensor in content.items() if name != _COUNTER})
        if averaged := next((key for key in _AVERAGED if _holds_tensors(content.get(key))), None):
            return self._averaged(content, averaged)
        return self._of_several(content) or self._beside_others(content)

    def _averaged(self, content: Mapping[str, Any], key: str) -> StateDict | None:
        others = [other for other, value in content.items() if other not in _AVERAGED and _holds_tensors(value)]
        found = self.find(content[key])
        which = _which(self._path, key, others[0]) if others else ""
        return found and replace(found, taken=found.taken or key, remark=_joined(which, found.remark))

    def _of_several(self, content: Mapping[Any, Any]) -> StateDict | None:
        """Return the one that fits of the state dicts in `content`; where none or several do, that under the first of the usual keys."""
        keys = [*_WRAPPINGS, *(key for key in content if isinstance(key, str) and key not in (*_WRAPPINGS, *_AVERAGED))]
        found = {key: state for key in keys if (state := self.find(content.get(key))) is not None}
        if not found:
            return None
        fitting = [key for key, state in found.items() if self._fits(state)] or list(found)
        if len(fitting) > 1 and fitting[0] not in _WRAPPINGS:
            raise BadCheckpoint(
                self._path,
                f"it holds several state dicts ({', '.join(fitting)}); save the one that is meant as a file of its own",
            )
        key = fitting[0]
        return replace(found[key], remark=_joined(self._chosen(content, key, list(found)), found[key].remark))

    def _chosen(self, content: Mapping[str, Any], key: str, found: list[str]) -> str:
        """Return what is to be said of the choice of `key` among those `found`."""
        unknown = [other for other in _AVERAGED if isinstance(content.get(other), dict) and other != key]
        if unknown:
            return f"{self._path.name} holds averaged weights ({unknown[0]}) in a form that is not known; {key} is taken."
        others = [other for other in found if other != key]
        if others:
            return f"{self._path.name} holds several state dicts ({', '.join(found)}); {key} is taken."
        return "" if key in _WRAPPINGS else f"Of {self._path.name}, what is under {key!r} is taken."

    def _beside_others(self, content: Mapping[Any, Any]) -> StateDict | None:
        """Return the tensors of `content` if they fit, whatever stands beside them."""
        tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        found = self._named(tensors)
        if self._wanted is None or not tensors or not self._fits(found):
            return None
        others = next(str(key) for key in content if key not in tensors)
        return replace(found, remark=_joined(f"Of {self._path.name}, tensors alone are taken, without {others!r}.", found.remark))

    def _named(self, tensors: dict[str, Tensor]) -> StateDict:
        remark = take_off_prefixes(tensors, self._wanted).remark
        return StateDict(self._path, tensors, remark=f"{self._path.name}: {remark}" if remark else "")

    def _fits(self, state: StateDict) -> bool:
        return self._wanted is None or self._wanted.fit(take_off_prefixes(state.tensors, self._wanted).names)


def _read(path: Path) -> object:
    """Return what is in the file: nothing is run that is pickled there. Raises BadCheckpoint."""
    if is_adapter(path):
        raise BadCheckpoint(path, "it is an adapter, which is a task on a network's weights and not these; give it as a task")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if not path.name.endswith(WEIGHTS):
        raise BadCheckpoint(path, f"a checkpoint is a .safetensors file, or one by torch.save ({', '.join(WEIGHTS[1:])})")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(as_globals()):
            warnings.simplefilter("ignore")  # torch warns of foreign pickles before it refuses them
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadCheckpoint(path, "there is no such file") from error
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise BadCheckpoint(path, _why_not(str(error))) from error


def _nothing(content: object) -> str:
    """Return why there is no state dict in `content`."""
    if isinstance(content, dict):
        inner = next((content[key] for key in _WRAPPINGS if isinstance(content.get(key), (dict, list))), None)
        if inner is not None:
            return _nothing(inner)
    values = list(content.values()) if isinstance(content, dict) else content if isinstance(content, (list, tuple)) else []
    if values and all(isinstance(value, Tensor) for value in values):
        return f"it holds {len(values)} tensors by number, without the names that say what they are; {_ALONE}"
    return "it holds no state dict (a mapping from names to tensors)"


def _why_not(said: str) -> str:
    """Return why torch does not read a file as plain tensors, by what it `said`."""
    if "TorchScript" in said:
        return f"it is a TorchScript archive, which holds code; {_ALONE}"
    if pickled := re.search(r"GLOBAL (\S+)|but got <class '([^']+)'>", said):
        return f"it holds pickled code, which is refused ({pickled[1] or pickled[2]}); {_ALONE}"
    return "torch cannot read it as plain tensors: it is truncated, or holds pickled code, which is refused"


def _dense(path: Path, name: str, tensor: Tensor) -> Tensor:
    """Return `tensor` with a value for each place. Raises BadCheckpoint if it holds none, or rounded ones."""
    if tensor.is_meta:
        raise BadCheckpoint(
            path, f"its tensors hold no data ({name} is on torch's meta device); save the network with its weights"
        )
    if tensor.is_quantized:
        raise BadCheckpoint(path, f"its tensors are quantised ({name}); save the network as it was before that")
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def _is_state_dict(content: object) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _holds_tensors(content: object) -> bool:
    """Return whether `content` is a state dict, or one in wrappings."""
    if not isinstance(content, dict):
        return False
    return _is_state_dict(content) or any(_holds_tensors(content.get(key)) for key in (*_AVERAGED, *_WRAPPINGS))


def _which(path: Path, averaged: str, other: str) -> str:
    return (
        f"{path.name} holds averaged weights ({averaged}) beside others ({other}); the averaged ones are taken, as timm does. "
        f"To have the others, save what is under {other!r} as a file of its own."
    )


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))
