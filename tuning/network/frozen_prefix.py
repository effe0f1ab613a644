"""Train only what comes after the first tuned block: everything before it gives the same result in every epoch.

The network is traced with torch.fx, whose finest grain here is a module without anything trainable inside: only the forward functions of
a trainable module's ancestors are traced through, so control flow inside blocks, BatchNorm's two modes and the like stay untouched.
In the traced graph, what depends on a trainable module is the suffix; what depends on the image alone is the prefix. The values
that pass from one to the other are the features, computed once. Where tracing fails, or the features are not one row per image,
or prefix and suffix together do not equal the network, there is no split and the caller runs the whole network.
What depends on a feature's size alone (the B, N, C = x.shape of an attention) is no feature: prefix and suffix each work it out for itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Set
from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor, fx, nn

from tuning.network.blocks import is_under
from tuning.network.copying import ancestors

_PROBED = "network"  # attribute of the traced wrapper under which the network is
# Sums in another order (another batch size picks another kernel) differ by about 1e-6 of the values' size.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class SplitNetwork:
    """A network as a frozen prefix and a suffix, which share its modules.

    prefix: images to features, a tuple of (n, ...). suffix: features to logits. key: what the prefix computes, in terms of the
    network's modules: splits of one network (or of copies with the same weights there) with equal keys have equal features.
    """

    prefix: nn.Module
    suffix: nn.Module
    key: str


class _Part(Enum):
    CONSTANT = auto()  # depends neither on the image nor on anything trainable: recomputed where it is used
    PREFIX = auto()
    SIZE = auto()  # depends on the shape of the prefix's tensors, not on their values: recomputed where it is used
    SUFFIX = auto()


class _Wrapper(nn.Module):
    """Calls the network with the image alone, so that further arguments of its forward keep their defaults in the trace."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)  # type: ignore[no-any-return]


class _AncestorTracer(fx.Tracer):
    """Traces through the modules that contain something trainable, and through no other."""

    def __init__(self, trainable: Iterable[str]) -> None:
        super().__init__()
        self._ancestors = {ancestor for path in trainable for ancestor in ancestors(path)}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._ancestors


def split_network(network: nn.Module, trainable: Iterable[str], images: Tensor) -> SplitNetwork | None:
    """Return `network` (eval mode) split before the modules `trainable` (paths), or None when it cannot be split soundly.

    images: normalised, (n, 3, height, width) with n >= 3, to try the split on.
    """
    wrapper = _Wrapper(network)
    paths = tuple(f"{_PROBED}.{path}" for path in trainable)
    try:
        graph = _AncestorTracer(paths).trace(wrapper)
        split = _split_graph(wrapper, graph, _find_parts(graph, paths))
        return split if _agrees(network, split, images) else None
    except (
        Exception
    ):  # tracing runs the network's own Python on stand-ins and fails in ways of its own; the whole network is always right
        return None


def _find_parts(graph: fx.Graph, trainable: tuple[str, ...]) -> dict[fx.Node, _Part]:
    parts: dict[fx.Node, _Part] = {}
    for node in graph.nodes:
        before = {parts[source] for source in node.all_input_nodes}
        tuned = node.op in ("call_module", "get_attr") and is_under(str(node.target), trainable)
        if tuned or _Part.SUFFIX in before or node.op == "output":
            parts[node] = _Part.SUFFIX
        elif _Part.PREFIX in before and _is_size(node):
            parts[node] = _Part.SIZE
        elif node.op == "placeholder" or _Part.PREFIX in before:
            parts[node] = _Part.PREFIX
        elif _Part.SIZE in before:
            parts[node] = _Part.SIZE
        else:
            parts[node] = _Part.CONSTANT
    return parts


def _split_graph(wrapper: nn.Module, graph: fx.Graph, parts: dict[fx.Node, _Part]) -> SplitNetwork:
    """Return prefix and suffix; constants and sizes are copied into both."""
    again = _find_repeated(graph, parts)
    features = [node for node in graph.nodes if parts[node] is _Part.PREFIX and not again.isdisjoint(node.users)]
    prefix, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        if parts[node] is not _Part.SUFFIX:
            copies[node] = prefix.node_copy(node, copies.__getitem__)
    prefix.output(tuple(copies[node] for node in features))

    suffix, repeated = fx.Graph(), dict[fx.Node, fx.Node]()
    for index, node in enumerate(features):
        repeated[node] = suffix.placeholder(f"feature_{index}")
    for node in graph.nodes:
        if parts[node] is _Part.CONSTANT or node in again:
            repeated[node] = suffix.node_copy(node, repeated.__getitem__)
    modules = [fx.GraphModule(wrapper, part) for part in (prefix, suffix)]
    for module in modules:
        module.graph.eliminate_dead_code()
        module.recompile()
    return SplitNetwork(modules[0], modules[1], hashlib.sha256(str(modules[0].graph).encode()).hexdigest())


def _is_size(node: fx.Node) -> bool:
    """Return whether `node` asks a tensor for its shape."""
    return (node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim")) or (
        node.op == "call_method" and node.target in ("size", "dim")
    )


def _find_repeated(graph: fx.Graph, parts: dict[fx.Node, _Part]) -> Set[fx.Node]:
    """Return the nodes that run in every step: the suffix and the sizes that it needs."""
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if parts[node] is _Part.SUFFIX or (parts[node] is _Part.SIZE and not found.isdisjoint(node.users)):
            found.add(node)
    return found


@torch.no_grad()
def _agrees(network: nn.Module, split: SplitNetwork, images: Tensor) -> bool:
    """Return whether prefix and suffix together equal the network, and an image's features and logits do not depend on its batch."""
    features, fewer = split.prefix(images), split.prefix(images[:-1])
    if not all(isinstance(f, Tensor) and f.ndim and f.shape[0] == len(images) for f in features):
        return False
    logits = network(images)
    pairs = [(fewer[index], f[:-1]) for index, f in enumerate(features)]
    pairs += [(split.suffix(*features), logits), (split.suffix(*fewer), logits[:-1])]
    return all(_close(found, expected) for found, expected in pairs)


def _close(found: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors of one shape agree within what float32 sums in another order differ by."""
    bound = _TOLERANCE * max(1.0, float(expected.abs().max()))
    return found.shape == expected.shape and float((found - expected).abs().max()) <= bound
