"""Structured pruning: which channels hang together, and how the least important ones are cut out.

The dependency graph (DepGraph, arXiv 2301.12900) and the cutting are torch-pruning's. What is ours is which groups of channels are cut:
those inside one block, so that what goes into a block and what comes out of it keep their shape, and its frozen neighbours fit as before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch_pruning as tp
from torch import nn

from tuning.errors import BadOptions, UnsupportedNetwork
from tuning.network.blocks import is_under
from tuning.network.paths import attention_paths
from tuning.network.resize import RESIZABLE, is_depthwise

_L1 = tp.importance.MagnitudeImportance(p=1, group_reduction="mean", normalizer=None)


@dataclass(frozen=True)
class Cut:
    """layer: path of the layer whose outputs were cut. channels: how many it had. kept: how many it has."""

    layer: str
    channels: int
    kept: int


def cut_channels(
    network: nn.Module, blocks: Sequence[str], ratio: float, image: torch.Tensor
) -> tuple[nn.Module, tuple[Cut, ...]]:
    """Return a copy of `network` (eval mode) without the share `ratio` of the channels inside each of `blocks`, and what was cut.

    A group of channels that hang together (a convolution's outputs, their norm, the next convolution's inputs) is inside a block if
    all of its layers are. Its channels of the smallest L1 norm, averaged over the group's layers, are cut; one at least is kept.
    Hidden widths of attention stay: they are tied to the number of heads.
    image: one normalised image, (1, 3, height, width).
    Raises BadOptions for a ratio outside 0..1 or too small, UnsupportedNetwork when nothing is inside the blocks or tracing fails.
    """
    if not 0 < ratio < 1:
        raise BadOptions(f"The share of channels to cut must lie between 0 and 1, not {ratio}.")
    narrow = copy.deepcopy(network).eval().requires_grad_(True)  # torch-pruning traces by autograd
    graph = _trace(narrow, image)
    # First all choices, then all cuts: a choice must not depend on what was cut before.
    chosen = [(group, _least_important(group, ratio)) for group in _inner_groups(graph, narrow, blocks)]
    names = {module: path for path, module in narrow.named_modules()}
    cuts = []
    for group, channels in chosen:
        if channels:
            root = group[0].dep.target.module
            cuts.append(Cut(names[root], len(group[0].idxs), len(group[0].idxs) - len(channels)))
            group.prune(channels)
    if chosen and not cuts:
        raise BadOptions(f"A share of {ratio} cuts no channel of the tuned blocks, so few are there; give a larger one.")
    if not cuts:
        raise UnsupportedNetwork(
            "There is nothing to prune: inside the tuned blocks no layer passes channels to another one "
            "without passing them to the outside, too."
        )
    _check_runs(narrow, network, image)
    return narrow.requires_grad_(False), tuple(cuts)


def _trace(network: nn.Module, image: torch.Tensor) -> tp.DependencyGraph:
    try:
        with torch.enable_grad():
            return tp.DependencyGraph().build_dependency(network, image, verbose=False)
    except Exception as error:  # it runs the network and reads its autograd graph, and fails in ways of its own
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UnsupportedNetwork(f"torch-pruning cannot follow the channels of this network ({reason}).") from error


def _inner_groups(graph: tp.DependencyGraph, network: nn.Module, blocks: Sequence[str]) -> Iterator[tp.Group]:
    """Yield the groups of channels that are inside a block and made of layers whose sizes can be read off their tensors."""
    names = {module: path for path, module in network.named_modules()}
    attention = attention_paths(network)
    outside = [module for path, module in network.named_modules() if isinstance(module, RESIZABLE) and not is_under(path, blocks)]
    for group in graph.get_all_groups(ignored_layers=outside):
        touched = [dep.target.module for dep, _ in group]
        layers = [module for module in touched if isinstance(module, RESIZABLE)]
        others = [target for target in touched if not isinstance(target, RESIZABLE) and _holds_weights(target)]
        paths = [names[layer] for layer in layers]
        inside = any(all(is_under(path, [block]) for path in paths) for block in blocks)
        if inside and not others and not any(is_under(path, attention) for path in paths) and _is_one_to_one(graph, group):
            yield group


def _is_one_to_one(graph: tp.DependencyGraph, group: tp.Group) -> bool:
    """Return whether all layers have the same channels. In gated layers (one half of the outputs times the other) they have not."""
    root = group[0].idxs
    for dep, channels in group:
        if isinstance(dep.target.module, RESIZABLE):
            out = graph.is_out_channel_pruning_fn(dep.handler)
            count = graph.get_out_channels(dep.target) if out else graph.get_in_channels(dep.target)
            if count != len(root) or list(channels) != list(root):
                return False
    return True


def _holds_weights(target: nn.Module | nn.Parameter) -> bool:
    """Return whether `target`, a layer, a bare parameter or an operation of the graph, would change shape with the channels."""
    return isinstance(target, torch.Tensor) or next(target.parameters(), None) is not None


def _least_important(group: tp.Group, ratio: float) -> list[int]:
    """Return the channels of the group's first layer to cut; where convolutions are grouped, the same ones of each of their groups."""
    divisions = {
        dep.target.module.groups
        for dep, _ in group
        if isinstance(dep.target.module, nn.Conv2d) and not is_depthwise(dep.target.module) and dep.target.module.groups > 1
    }
    importance = _L1(group)
    parts = divisions.pop() if divisions else 1
    if divisions or importance is None or len(importance) % parts:
        return []
    size = len(importance) // parts
    order = importance.reshape(parts, size).mean(0).argsort(stable=True)[: min(round(size * ratio), size - 1)]
    return sorted(part * size + int(channel) for part in range(parts) for channel in order)


@torch.no_grad()
def _check_runs(narrow: nn.Module, network: nn.Module, image: torch.Tensor) -> None:
    try:
        fits = narrow(image).shape == network(image).shape
    except RuntimeError:
        fits = False
    if not fits:
        raise UnsupportedNetwork(
            "This network does not run with fewer channels: its code counts on the number that it was built with."
        )
