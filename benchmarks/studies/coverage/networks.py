"""One small network per timm model family, with random weights, and a tuned copy of it."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn

from tuning.errors import UnsupportedNetwork
from tuning.network.blocks import find_blocks, find_head, is_under, replace_head

# From small to large, as timm names its variants; a name without any of these words ranks between small and base.
_SIZES = ("zepto", "atto", "femto", "pico", "nano", "tiny", "xxs", "xxsmall", "xs", "xsmall", "mini", "little", "s", "small")
_CANDIDATES = 10  # variants whose parameters are counted, best guesses by name first
_LARGEST_INPUT = 256  # pixels; networks for larger ones are run on smaller ones, where they allow it
_SMALLER_INPUTS = (224, 256)
_MANY_PARAMETERS = 50e6  # beyond that a network is built with _FEW_BLOCKS, where its constructor takes a depth
_FEW_BLOCKS = 6


@dataclass(frozen=True, eq=False)
class TunedCopy:
    """A copy of a network in which one module and the head have other weights. `module`: its path, `found_by`: how it was chosen."""

    network: nn.Module
    module: str
    found_by: str


def list_families() -> tuple[str, ...]:
    """Return the names of timm's modules that have registered models: its model families."""
    return tuple(module for module in timm.list_modules() if timm.list_models(module=module))


def smallest_variant(family: str) -> str:
    """Return the name of the variant of `family` with the fewest parameters among those whose names promise a small one.

    The tiny networks of timm's own tests (test_...) are chosen only where there is nothing else: nobody deploys them.
    """
    names: list[str] = timm.list_models(module=family)
    names = [name for name in names if not name.startswith("test_")] or names
    ranked = sorted(names, key=_size_hint)[:_CANDIDATES]
    counted = {name: count for name in ranked if (count := _count_parameters(name)) is not None}
    return min(counted, key=lambda name: (counted[name], name)) if counted else ranked[0]


def random_network(name: str) -> tuple[nn.Module, int, str]:
    """Return the timm network `name` in eval mode with random weights, the pixels of its square input, and its name with options.

    Random is also what timm initialises with one number, which would hide that a weight has changed. BatchNorm gets the statistics that
    it meets, with noise: with any others a deep network answers the same to every image, and no error of it could be judged.
    """
    network, size, label = _create(name)
    return randomise(network, size), size, label


def randomise(network: nn.Module, size: int) -> nn.Module:
    """Give `network`, which takes square images of `size` pixels, random weights as `random_network` has them, in place; return it."""
    network.eval()
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            _randomise(key, tensor)
        _meet_statistics(network, size)
    return network.eval().requires_grad_(False)


def tune(network: nn.Module, seed: int, classes: int = 7) -> TunedCopy:
    """Return a copy with 10 % of noise on the weights of one block from the middle half, chosen by `seed`, and a head of `classes`.

    Where no blocks are found, a child module from the middle is taken; where the head cannot be replaced, its weights change.
    """
    blocks, found_by = find_blocks(network), "blocks"
    if not blocks:
        blocks, found_by = _children(network), "child modules"
    generator = torch.Generator().manual_seed(seed)
    quarter = len(blocks) // 4
    middle = blocks[quarter : max(len(blocks) - quarter, quarter + 1)]
    module = middle[int(torch.randint(len(middle), (1,), generator=generator))]
    tuned = copy.deepcopy(network)
    _add_noise(tuned, (module,), generator)
    try:
        replace_head(tuned, classes, seed)
    except UnsupportedNetwork:
        _add_noise(tuned, find_head(tuned), generator)
    return TunedCopy(tuned.eval().requires_grad_(False), module, found_by)


def _size_hint(name: str) -> tuple[int, list[int], str]:
    words = re.split(r"[_\d]+", name)
    rank = min((_SIZES.index(word) for word in words if word in _SIZES), default=len(_SIZES))
    large = any(word in ("base", "large", "huge", "giant", "l", "b", "h", "xl", "xlarge", "m", "medium") for word in words)
    return rank + 2 * large, [int(number) for number in re.findall(r"\d+", name)], name


def _count_parameters(name: str) -> int | None:
    """Return the parameters of `name`, built without memory; None where its constructor needs values."""
    try:
        with torch.device("meta"):
            network = timm.create_model(name)
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AssertionError):
        return None
    return sum(parameter.numel() for parameter in network.parameters())


def _create(name: str) -> tuple[nn.Module, int, str]:
    """Return the network, the pixels of its input, and its name with the options that it was built with."""
    config = timm.get_pretrained_cfg(name)
    size = config.input_size[-1] if config else 224
    count = _count_parameters(name)
    depth = {"depth": _FEW_BLOCKS} if count is None or count > _MANY_PARAMETERS else {}
    smaller = _SMALLER_INPUTS if size > _LARGEST_INPUT else ()
    sizes = [({"img_size": pixels}, pixels) if config and config.fixed_input_size else ({}, pixels) for pixels in smaller]
    for options, pixels in [*sizes, ({}, size)]:
        for extra in (depth, {}):
            network = _try({**options, **extra}, name, pixels)
            if network is not None:
                return network, pixels, " ".join([name, *(f"{key}={value}" for key, value in extra.items())])
    return timm.create_model(name), size, name


def _try(options: dict[str, Any], name: str, size: int) -> nn.Module | None:
    """Return the network built with `options`, or None if there is no such one or it takes no images of `size` pixels."""
    torch.manual_seed(0)
    try:
        network: nn.Module = timm.create_model(name, **options).eval()
        with torch.inference_mode():
            network(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError, TypeError):
        return None
    return network


def _randomise(key: str, tensor: torch.Tensor) -> None:
    if not tensor.is_floating_point() or not tensor.numel():
        return
    uniform = tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all())
    if key.endswith(("bias", "running_mean")) or (tensor.dim() > 1 and uniform and not tensor.any()):
        tensor.normal_(0, 0.1)
    elif tensor.dim() <= 1 or uniform:
        tensor.uniform_(0.5, 1.5)


def _meet_statistics(network: nn.Module, size: int) -> None:
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    network(torch.randn(4, 3, size, size) + torch.linspace(-1, 1, 4).reshape(4, 1, 1, 1))
    for norm in norms:
        norm.eval()
        mean, variance = norm.running_mean, norm.running_var
        if mean is not None and variance is not None:
            mean.add_(torch.randn(norm.num_features) * 0.1 * variance.sqrt())
            variance.mul_(torch.rand(norm.num_features) * 0.4 + 0.8)


def _children(network: nn.Module) -> tuple[str, ...]:
    paths = [path for path, module in network.named_children() if next(module.parameters(), None) is not None]
    return tuple(path for path in paths if not is_under(path, find_head(network))) or tuple(paths)


@torch.no_grad()
def _add_noise(network: nn.Module, paths: tuple[str, ...], generator: torch.Generator) -> None:
    for name, value in network.named_parameters():
        if is_under(name, paths):
            value.mul_(1 + 0.1 * torch.rand(value.shape, generator=generator))
