"""Names for parts of a network: blocks, their norms or attention, single layers, by name or pattern."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from tuning.errors import UnknownBlock
from tuning.network.blocks import find_blocks, find_head, is_under
from tuning.network.copying import ancestors

_PATTERN = frozenset("*?[")
_CLOSE = 8  # how many near names a sentence lists, if a network has many


def find_paths(network: nn.Module, names: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of what `names` mean, in the order of the network, none inside another, the head left out.

    A name is a module or parameter path (layer4.1, blocks.3.attn.qkv, cls_token), a pattern of such (blocks.*.attn), or "norm" or
    "attention": all normalisation layers, all attention modules; PATH:norm and PATH:attention are those under a path or pattern.
    A path always means itself: where a network has a part called "norm" (a ViT's last one), all norms are "*:norm".
    Raises UnknownBlock.
    """
    head = find_head(network)
    around = {part for path in head for part in ancestors(path)}
    known = [path for path in _all_paths(network) if path not in around and not is_under(path, head)]
    found = {path for name in names for path in _meant(network, name, known)}
    return tuple(path for path in known if path in found and not is_under(path, found - {path}))


def norm_paths(network: nn.Module) -> tuple[str, ...]:
    """Return the paths of all normalisation layers."""
    return tuple(path for path, module in network.named_modules() if _is_norm(module))


def attention_paths(network: nn.Module) -> tuple[str, ...]:
    """Return the paths of all attention modules (by their class's name), the outermost ones."""
    paths = [path for path, module in network.named_modules() if "attention" in type(module).__name__.lower() and path]
    paths = [path for path in paths if next(network.get_submodule(path).parameters(), None) is not None]
    return tuple(path for path in paths if not is_under(path, set(paths) - {path}))


def _meant(network: nn.Module, name: str, known: Sequence[str]) -> list[str]:
    where, colon, kind = name.rpartition(":")
    kinds = {"norm": norm_paths, "attention": attention_paths}
    if kind in kinds and (colon or name not in known):
        inside = _meant(network, where, known) if colon else None
        paths = [p for p in kinds[kind](network) if p in known and (inside is None or is_under(p, inside))]
    elif _PATTERN & set(name):
        paths = [path for path in known if fnmatch.fnmatchcase(path, name)]
    else:
        paths = [name] if name in known else []
    if not paths:
        raise UnknownBlock(name, _suggestions(network, name, known))
    return paths


def _suggestions(network: nn.Module, name: str, known: Sequence[str]) -> list[str]:
    blocks = find_blocks(network)
    if name.count(".") <= max((block.count(".") for block in blocks), default=0):
        return list(blocks)
    return difflib.get_close_matches(name, known, n=_CLOSE) or list(blocks)


def _all_paths(network: nn.Module) -> Iterator[str]:
    """Yield the paths of all modules and parameters that hold something to train, each before what is inside it."""
    parameters = {path for path, _ in network.named_parameters()}
    for path, module in network.named_modules():
        if path and next(module.parameters(), None) is not None:
            yield path
        for name, _ in module.named_parameters(recurse=False):
            own = f"{path}.{name}" if path else name
            if own in parameters:
                yield own


def _is_norm(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and "norm" in type(module).__name__.lower() and all(p.ndim == 1 for p in own)
