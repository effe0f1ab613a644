"""LoRA adapters in folders as PEFT writes them, merged into a network's weights while they are read, without PEFT.

The format: https://huggingface.co/docs/peft/developer_guides/checkpoint. The update of a layer is scale * (B A), with scale alpha / r, or
alpha / sqrt(r) (rsLoRA, arXiv 2312.03732); for a convolution A has its kernel and B is 1x1, as in PEFT's own layers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contract.references import ADAPTER
from tuning.errors import BadCheckpoint
from tuning.network.blocks import find_blocks, is_under
from tuning.network.state_dicts import StateDict, read_state_dict

_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
_INSIDE = ".base_layer."  # before the output of a MultiheadAttention
_OUTPUT = "out_proj"
# PEFT (0.15 to 0.21) adds the update of that output twice, whenever it runs and when it merges, so that it was trained so.
_OUTPUT_FACTOR, _NEWEST = 2, (0, 21)
_FACTOR = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
# Settings that say how an adapter was trained, found or begun, and nothing of what it computes; and those that are read.
_OF_TRAINING = (
    "auto_mapping|base_model_name_or_path|corda_config|eva_config|exclude_modules|inference_mode|layers_pattern|layers_to_transform|"
    "loftq_config|lora_dropout|lora_ga_config|megatron_core|peft_version|qalora_group_size|revision|runtime_config|target_modules|task_type"
)
_READ = "alpha_pattern|bias|init_lora_weights|lora_alpha|modules_to_save|peft_type|r|rank_pattern|use_rslora"
_KNOWN = re.compile(f"{_OF_TRAINING}|{_READ}|fan_in_fan_out")  # the last: PEFT goes by the layer, whatever it says
_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")  # that leave the network's own weights as they are
_INSTEAD = "merge it where it was made (merge_and_unload), and give the whole weights"


@dataclass(frozen=True)
class _Settings:
    """What adapter_config.json says of the merging; names of layers are as `r` and `lora_alpha` have them unless a pattern fits.

    version: of PEFT, major and minor; () where it says none.
    """

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    by_root: bool
    whole: tuple[str, ...]
    base: str
    version: tuple[int, ...] = ()

    def rank_of(self, layer: str) -> int:
        """Return the rank of a layer's update."""
        return self.ranks.get(_matching(self.ranks, layer), self.rank)

    def scale_of(self, layer: str) -> float:
        """Return the factor of a layer's update."""
        rank, alpha = self.rank_of(layer), self.alphas.get(_matching(self.alphas, layer), self.alpha)
        return alpha / (sqrt(rank) if self.by_root else rank)

    def is_whole(self, name: str) -> bool:
        """Return whether a tensor is in a module that is saved whole: PEFT compares the ends of paths."""
        parts = name.split(".")[:-1]
        paths = [".".join(parts[: end + 1]) for end in range(len(parts))]
        return any(path.endswith(module) for path in paths for module in self.whole)


def read_adapter(folder: Path, network: nn.Module) -> StateDict:
    """Return the whole state dict of `network`, which stays as it is, with the adapter in `folder` merged in.

    Takes LoRA on Linear, ungrouped Conv2d, MultiheadAttention and transformers' Conv1D layers, and modules that were saved whole.
    Raises BadCheckpoint for everything else by its name, and for tensors that do not fit.
    """
    settings, tensors = _read_settings(folder), _read_tensors(folder)
    factors: dict[str, dict[str, Tensor]] = {}
    replaced: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if factor := _FACTOR.fullmatch(name):
            factors.setdefault(factor["layer"], {})[factor["side"]] = tensor
        else:
            replaced[name] = tensor
    state = network.state_dict()
    _check_replaced(folder, settings, state, replaced)
    merged = dict(_merged(folder, network, settings, layer, pair) for layer, pair in factors.items())
    _refuse_tied(folder, state, merged)
    return StateDict(
        folder, {**state, **replaced, **merged}, remark=_remark(folder, network, settings, list(merged), list(replaced))
    )


def _read_settings(folder: Path) -> _Settings:
    try:
        config: dict[str, Any] = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        method = str(config.get("peft_type"))
        if method != "LORA":
            raise BadCheckpoint(folder, f"it is an adapter of the method {method}, and LoRA alone is merged here; {_INSTEAD}")
        _refuse_others(folder, config)
        for pattern in (*(config.get("rank_pattern") or ()), *(config.get("alpha_pattern") or ())):
            re.compile(pattern)
        return _Settings(
            rank=int(config.get("r", 8)),
            alpha=float(config.get("lora_alpha", 8)),
            ranks={str(key): int(rank) for key, rank in (config.get("rank_pattern") or {}).items()},
            alphas={str(key): float(alpha) for key, alpha in (config.get("alpha_pattern") or {}).items()},
            by_root=bool(config.get("use_rslora")),
            whole=tuple(map(str, config.get("modules_to_save") or ())),
            base=str(config.get("base_model_name_or_path") or ""),
            version=tuple(int(number) for number in re.findall(r"\d+", str(config.get("peft_version") or ""))[:2]),
        )
    except (OSError, ValueError, TypeError, AttributeError, re.error) as error:
        raise BadCheckpoint(folder, f"its {ADAPTER} cannot be read ({error})") from error


def _refuse_others(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise BadCheckpoint for a setting that changes what the adapter computes in a way that is not known here."""
    if (bias := config.get("bias") or "none") != "none":
        raise BadCheckpoint(folder, f"it is a LoRA adapter with bias={bias!r}, which is not merged here; {_INSTEAD}")
    if (begun := config.get("init_lora_weights")) not in _BEGINNINGS:
        raise BadCheckpoint(
            folder, f"it was begun with init_lora_weights={begun!r}, which changes the network's own weights; {_INSTEAD}"
        )
    for key, value in sorted(config.items()):
        if value and not _KNOWN.fullmatch(key):
            name = "DoRA" if key == "use_dora" else f"a LoRA adapter with {key}"
            raise BadCheckpoint(folder, f"it is {name}, which is not merged here; {_INSTEAD}")


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return the adapter's tensors under the network's names."""
    file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if file is None:
        raise BadCheckpoint(folder, f"it holds {ADAPTER}, but no {' and no '.join(_FILES)}")
    tensors = read_state_dict(file).tensors
    if foreign := [name for name in tensors if not name.startswith(_PREFIX)]:
        raise BadCheckpoint(file, f"PEFT's names begin with {_PREFIX!r}, but there is {foreign[0]!r}; save it by save_pretrained")
    return {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}


def _check_replaced(folder: Path, settings: _Settings, state: Mapping[str, Tensor], replaced: Mapping[str, Tensor]) -> None:
    """Raise BadCheckpoint unless `replaced` are the modules that are saved whole, in the network and no others."""
    for name in replaced:
        if not settings.is_whole(name):
            raise BadCheckpoint(
                folder, f"it holds {name!r}, which is no update of a layer's weight nor in modules_to_save; {_INSTEAD}"
            )
        if name not in state:
            raise BadCheckpoint(folder, f"it holds {name!r}, which the network does not have")
    lacking = [name for name in state if settings.is_whole(name) and name not in replaced]
    if lacking:
        raise BadCheckpoint(folder, f"it lacks {lacking[0]!r}, which is in one of modules_to_save")


@torch.no_grad()
def _merged(folder: Path, network: nn.Module, settings: _Settings, layer: str, pair: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    """Return the name of the weight of `layer`, and that weight with its update."""
    if len(pair) < 2:
        raise BadCheckpoint(folder, f"it lacks one of lora_A and lora_B of {layer!r}")
    whole, inside, _ = layer.partition(_INSIDE)  # ranks and factors of an attention's output are those of the attention
    rank = settings.rank_of(whole)
    name, transposed = _weight_name(folder, network, settings, layer)
    weight = network.get_parameter(name)
    down, up = pair["A"].float(), pair["B"].float()
    turned = weight.T if transposed else weight
    outputs, *inputs = turned.shape
    if rank < 1 or down.shape != (rank, *inputs) or up.shape != (outputs, rank, *(1 for _ in inputs[1:])):
        shapes = f"lora_A {tuple(down.shape)} and lora_B {tuple(up.shape)} of {layer!r}"
        raise BadCheckpoint(folder, f"{shapes} do not fit its weight {tuple(weight.shape)} by rank {rank}")
    scale = settings.scale_of(whole) * (_OUTPUT_FACTOR if inside else 1)
    update = scale * (up.flatten(1) @ down.flatten(1)).view_as(turned)
    return name, weight.float() + (update.T if transposed else update)


def _weight_name(folder: Path, network: nn.Module, settings: _Settings, layer: str) -> tuple[str, bool]:
    """Return the name of the weight that an update is for, and whether it has the inputs first. Raises BadCheckpoint."""
    path, inside, part = layer.partition(_INSIDE)
    module = _module(folder, network, path)
    if isinstance(module, nn.MultiheadAttention):
        _check_attention(folder, settings, path, module)
        if not inside:
            return f"{path}.in_proj_weight", False
        if part == _OUTPUT:
            return f"{path}.{_OUTPUT}.weight", False
    parent, _, last = path.rpartition(".")
    if last == _OUTPUT and isinstance(network.get_submodule(parent), nn.MultiheadAttention):
        raise BadCheckpoint(folder, f"it updates {path!r} alone, which PEFT leaves out when it runs the attention; {_INSTEAD}")
    grouped = isinstance(module, nn.Conv2d) and module.groups > 1
    if inside or grouped or not (isinstance(module, (nn.Linear, nn.Conv2d)) or _is_transposed(module)):
        kind = f"{'grouped ' if grouped else ''}{type(module).__name__}"
        taken = "Linear, Conv2d without groups, Conv1D and MultiheadAttention"
        raise BadCheckpoint(folder, f"it updates {path!r}, a {kind}; {taken} are merged here; {_INSTEAD}")
    return f"{path}.weight", _is_transposed(module)


def _module(folder: Path, network: nn.Module, path: str) -> nn.Module:
    """Return the module that an update is for. Raises BadCheckpoint if there is none."""
    try:
        return network.get_submodule(path)
    except AttributeError as error:
        raise BadCheckpoint(
            folder, f"it updates {path!r}, which the network does not have; give the network that it was made on"
        ) from error


def _check_attention(folder: Path, settings: _Settings, path: str, module: nn.MultiheadAttention) -> None:
    if not module._qkv_same_embed_dim:
        reason = f"it updates {path!r}, a MultiheadAttention with keys or values of another width, which PEFT does not take"
        raise BadCheckpoint(folder, reason)
    if settings.version > _NEWEST:
        version, newest = (".".join(map(str, numbers)) for numbers in (settings.version, _NEWEST))
        reason = (
            f"it updates {path!r}, a MultiheadAttention, by PEFT {version}; how that merges one is known up to {newest} alone"
        )
        raise BadCheckpoint(folder, f"{reason}; {_INSTEAD}")


def _is_transposed(module: nn.Module) -> bool:
    """Return whether a layer is transformers' Conv1D, a Linear whose weight has the inputs first (fan_in_fan_out)."""
    weight = getattr(module, "weight", None)
    return type(module).__name__ == "Conv1D" and isinstance(weight, Tensor) and weight.ndim == 2


def _refuse_tied(folder: Path, state: Mapping[str, Tensor], merged: Iterable[str]) -> None:
    for name in merged:
        if tied := next((other for other, tensor in state.items() if other != name and tensor.is_set_to(state[name])), None):
            raise BadCheckpoint(folder, f"it updates {name!r}, which is {tied!r}, too, and that would change with it; {_INSTEAD}")


def _matching(patterns: Iterable[str], layer: str) -> str:
    """Return the first of `patterns` that the end of a layer's path matches, as PEFT does, else the path itself."""
    return next((pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", layer)), layer)


def _remark(folder: Path, network: nn.Module, settings: _Settings, merged: list[str], replaced: list[str]) -> str:
    """Return what was merged, and what of the network that leaves as it is."""
    blocks = find_blocks(network)
    changed = [block for block in blocks if any(is_under(name, (block,)) for name in (*merged, *replaced))]
    layers, modules = (list(dict.fromkeys(name.rpartition(".")[0] for name in names)) for names in (merged, replaced))
    whole = f", and {_listed(modules)} replaced" if modules else ""
    named = f" ({_listed(changed)})" if changed else ""
    of_blocks = f" Of the network's {len(blocks)} blocks this changes {len(changed)}{named}." if blocks else ""
    attention = any(isinstance(module, nn.MultiheadAttention) and path in layers for path, module in network.named_modules())
    twice = ", its output's twice, as PEFT does" if attention else ""
    base = f"on {settings.base!r}" if settings.base else "on these weights"
    return (
        f"{folder.name}: LoRA is merged into {len(layers)} layer{'s' * (len(layers) != 1)} ({_listed(layers)}){twice}{whole}.{of_blocks} "
        f"What is as it was is shared where its input is the same. Nobody can check that the adapter was made {base}."
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
