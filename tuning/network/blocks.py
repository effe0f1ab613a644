"""Where a network can be tuned: its blocks and its head, found without a list of architectures.

Blocks of a timm network come from timm's own `group_matcher`: every module whose whole path is matched by one of its patterns
for layer groups, outside the stem (layer1.0, blocks.3, stages.2.blocks.5). What a pattern merely adds to a neighbouring group
(downsampling between stages, the final norm) is no block, and stays frozen. A matched module that is a whole stage, with a list
`blocks` inside, stands for the members of that list.

Every other network (torchvision's, anybody's): the outermost modules whose class occurs at least twice, seen through plain
containers (Sequential, ModuleList, ModuleDict and what derives from them), if the class holds at least two weight layers: a lone
convolution with its norm is plumbing, not a block. So Bottleneck, EncoderBlock, MBConv, CNBlock. A network of bare layers
(VGG) falls back to its convolutions, the first excepted, which is its stem.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from tuning.errors import UnsupportedNetwork

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_WEIGHT_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


def find_blocks(network: nn.Module) -> tuple[str, ...]:
    """Return the module paths of the tunable blocks in forward order; empty when the network has none.

    Order is that of registration, which is forward order throughout timm and torchvision.
    """
    return _matched_blocks(network) or _repeated_blocks(network) or _bare_convolutions(network)


def find_head(network: nn.Module) -> tuple[str, ...]:
    """Return the module paths of the classifier (several for distilled networks); empty when there is none.

    timm says it (`default_cfg["classifier"]`); elsewhere it is the last Linear, or the last Conv2d where there is no Linear.
    """
    config = getattr(network, "default_cfg", None)
    if config is not None:
        named = config.get("classifier") or ()
        paths = (named,) if isinstance(named, str) else tuple(named)
        modules = dict(network.named_modules())
        return tuple(path for path in paths if path in modules and _has_parameters(modules[path]))
    for kind in (nn.Linear, nn.Conv2d):
        layers = [path for path, module in network.named_modules() if isinstance(module, kind)]
        if layers:
            return (layers[-1],)
    return ()


def replace_head(network: nn.Module, num_classes: int, seed: int) -> tuple[str, ...]:
    """Replace the classifier in place by a new one of `num_classes` outputs; return its module paths.

    Initialised from `seed` alone: uniform within 1/sqrt(inputs), as torch initialises a Linear. Raises UnsupportedNetwork
    when the network has no classifier or one that is neither Linear nor Conv2d.
    """
    paths = find_head(network)
    if not paths:
        raise UnsupportedNetwork("The network has no classifier that could be replaced by a new head.")
    generator = torch.Generator().manual_seed(seed)
    for path in paths:
        network.set_submodule(path, _new_head(network.get_submodule(path), num_classes, generator))
    if "num_classes" in vars(network):
        vars(network)["num_classes"] = num_classes
    return paths


def new_linear(inputs: int, outputs: int, seed: int) -> nn.Linear:
    """Return a new head that is a Linear, initialised as `replace_head` does."""
    return _linear(inputs, outputs, True, torch.Generator().manual_seed(seed))


def is_under(name: str, paths: Iterable[str]) -> bool:
    """Return whether the module or tensor `name` is one of `paths` or inside one."""
    return any(name == path or name.startswith(path + ".") for path in paths)


def _new_head(old: nn.Module, num_classes: int, generator: torch.Generator) -> nn.Module:
    bias = getattr(old, "bias", None) is not None
    if isinstance(old, nn.Linear):  # timm derives from it, with the same arithmetic
        return _linear(old.in_features, num_classes, bias, generator)
    if isinstance(old, nn.Conv2d) and old.groups == 1:
        size = (old.kernel_size[0], old.kernel_size[1])
        new = nn.Conv2d(old.in_channels, num_classes, size, (old.stride[0], old.stride[1]), bias=bias)
        _initialise(new, old.in_channels * size[0] * size[1], generator)
        return new
    raise UnsupportedNetwork(f"A classifier of type {type(old).__name__} cannot be replaced by a new head.")


def _linear(inputs: int, outputs: int, bias: bool, generator: torch.Generator) -> nn.Linear:
    new = nn.Linear(inputs, outputs, bias)
    _initialise(new, inputs, generator)
    return new


def _initialise(layer: nn.Module, inputs: int, generator: torch.Generator) -> None:
    for parameter in layer.parameters():
        _uniform(parameter, inputs**-0.5, generator)


@torch.no_grad()
def _uniform(parameter: Tensor, bound: float, generator: torch.Generator) -> None:
    parameter.uniform_(-bound, bound, generator=generator)


def _matched_blocks(network: nn.Module) -> tuple[str, ...]:
    """Return the modules that timm's layer-group patterns match whole; empty without such patterns."""
    matcher = getattr(network, "group_matcher", None)
    patterns = matcher(coarse=False) if callable(matcher) else None
    if not isinstance(patterns, dict):
        return ()
    stem = patterns.get("stem")
    groups = [re.compile(p) for name, entry in patterns.items() if name != "stem" for p in _block_patterns(entry)]
    modules = dict(network.named_modules())
    matched = [
        path
        for path, module in modules.items()
        if any(group.fullmatch(path) for group in groups)
        and not (isinstance(stem, str) and re.match(stem, path))
        and _has_parameters(module)
    ]
    outermost = [path for path in matched if not is_under(path, set(matched) - {path})]
    return tuple(block for path in outermost for block in _opened(path, modules[path]))


def _block_patterns(entry: object) -> Iterator[str]:
    """Yield the numbered patterns of a group entry that make groups of their own, not those that join a neighbour's."""
    pairs = [(entry, None)] if isinstance(entry, str) else entry
    if isinstance(pairs, (list, tuple)):
        for pattern, suffix in pairs:
            if suffix is None and re.compile(pattern).groups:
                yield pattern


def _opened(path: str, module: nn.Module) -> tuple[str, ...]:
    """Return the members of a stage's list `blocks`; any other module is a block itself."""
    inner = getattr(module, "blocks", None)
    if isinstance(inner, (nn.Sequential, nn.ModuleList)):
        return tuple(f"{path}.blocks.{name}" for name, _ in inner.named_children())
    return (path,)


def _repeated_blocks(network: nn.Module) -> tuple[str, ...]:
    """Return the outermost modules of classes that occur twice and hold two weight layers or more."""
    candidates = {path: m for path, m in network.named_modules() if path and not isinstance(m, _CONTAINERS)}
    weights = {path: _weight_layers(module) for path, module in candidates.items()}
    counts = Counter(type(module) for module in candidates.values())
    heavy = {type(module) for path, module in candidates.items() if weights[path] >= 2}
    repeated = [p for p, m in candidates.items() if counts[type(m)] >= 2 and type(m) in heavy and not _is_leaf(m)]
    blocks: list[str] = []
    for path in repeated:  # parents are listed before their children
        if not is_under(path, blocks):
            blocks.append(path)
    return tuple(blocks)


def _bare_convolutions(network: nn.Module) -> tuple[str, ...]:
    head = find_head(network)
    convolutions = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    return tuple(path for path in convolutions[1:] if path not in head)


def _weight_layers(module: nn.Module) -> int:
    return sum(isinstance(part, _WEIGHT_LAYERS) for part in module.modules())


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
