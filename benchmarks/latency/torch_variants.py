"""The tasks in torch, without exporting: separate networks, eager and compiled, and a shared trunk as one would write it by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from benchmarks.framework.errors import BenchmarkError
from benchmarks.models.families import CLASSES, HEAD, parts_of, subset
from benchmarks.models.synthetic import random_task
from contract.dtypes import Array
from exporter.sources.onnx_file import first_line
from tuning.network.backbone import Backbone
from tuning.network.checkpoint import build_network
from tuning.network.normalise import Normalise

_Step = Callable[[torch.Tensor], torch.Tensor]


class NoSteps(BenchmarkError):
    """A network for which nobody has written the steps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(f"A {type(network).__name__} has no steps to share by hand; only a ResNet and a VisionTransformer have.")


@dataclass(frozen=True)
class SharedTrunk:
    """trunk: steps from uint8 images on, run once. rests: the steps of each task behind it; those that are frozen are the same objects."""

    trunk: Sequence[_Step]
    rests: Sequence[Sequence[_Step]]

    def run(self, tasks: int, rows: Array) -> list[Array]:
        """Return the outputs of the first `tasks` tasks for uint8 `rows` of shape (n, height, width, 3)."""
        with torch.inference_mode():
            features = _apply(self.trunk, torch.from_numpy(rows))
            return [_apply(rest, features).numpy() for rest in self.rests[:tasks]]


def write_by_hand(backbone: Backbone, fork: str, tasks: int) -> SharedTrunk:
    """Return the tasks of `NetworkCache.family`, with the same weights. Raises NoSteps."""
    networks = (build_network(backbone, random_task(backbone, subset(fork), CLASSES, seed)) for seed in range(tasks))
    steps = [steps_of(network.to(memory_format=torch.channels_last)) for network in networks]
    names, frozen = list(steps[0]), steps[0]
    first = names.index(fork)
    normalise = Normalise(backbone.spec.preprocessing)

    def prepare(image: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = normalise(image)
        return rows.contiguous(memory_format=torch.channels_last)

    rests = [[own[name] if name in (fork, HEAD) else frozen[name] for name in names[first:]] for own in steps]
    return SharedTrunk([prepare, *(frozen[name] for name in names[:first])], rests)


def steps_of(network: nn.Module) -> dict[str, _Step]:
    """Return a timm network's steps in order: the blocks by their paths, the head as HEAD, and what is between. Raises NoSteps."""
    if isinstance(network, ResNet):
        return {**parts_of(network), HEAD: network.get_submodule("fc")}
    if isinstance(network, VisionTransformer):
        blocks: dict[str, _Step] = {f"blocks.{name}": block for name, block in network.get_submodule("blocks").named_children()}
        return {"stem": _stem(network), **blocks, "pool": _pool(network), HEAD: network.get_submodule("head")}
    raise NoSteps(network)


def _stem(network: VisionTransformer) -> _Step:
    return lambda image: network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(image))))


def _pool(network: VisionTransformer) -> _Step:
    return lambda tokens: network.head_drop(network.fc_norm(network.pool(network.norm(tokens))))


def _apply(steps: Sequence[_Step], values: torch.Tensor) -> torch.Tensor:
    for step in steps:
        values = step(values)
    return values


class NotCompiled(BenchmarkError):
    """torch.compile does not work on this machine, or not with this network."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"torch.compile does not work here ({reason}), so that its times are missing.")


class _Whole(nn.Module):
    """From uint8 images to logits, in the memory format that suits convolutions on a CPU."""

    def __init__(self, normalise: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.normalise, self.network = normalise, network

    def forward(self, image: torch.Tensor) -> Any:
        return self.network(self.normalise(image).contiguous(memory_format=torch.channels_last))


def open_rivals(backbone: Backbone, fork: str, tasks: int) -> list[nn.Module]:
    """Return the networks of `NetworkCache.family`, with the same weights, as torch modules."""
    return [_whole(backbone, fork, seed) for seed in range(tasks)]


def compile_all(networks: Sequence[nn.Module], rows: Array) -> list[nn.Module]:
    """Return `networks` compiled for inputs like `rows`. One compilation serves them all, for weights are inputs of what is compiled.

    Raises NotCompiled.
    """
    compiled = [cast(nn.Module, torch.compile(network, dynamic=False)) for network in networks]
    try:
        run_all(compiled, rows)
    except Exception as error:  # a compiler that is missing, an operator that it lacks: torch has no common base for it
        raise NotCompiled(first_line(error)) from error
    return compiled


def run_all(networks: Sequence[nn.Module], rows: Array) -> list[Array]:
    """Return the outputs of `networks` for uint8 `rows` of shape (n, height, width, 3), run one after another."""
    images = torch.from_numpy(rows)
    with torch.inference_mode():
        return [network(images).numpy() for network in networks]


def _whole(backbone: Backbone, fork: str, seed: int) -> nn.Module:
    network = build_network(backbone, random_task(backbone, subset(fork), CLASSES, seed))
    whole = _Whole(Normalise(backbone.spec.preprocessing), network).eval()
    return whole.to(memory_format=torch.channels_last)
