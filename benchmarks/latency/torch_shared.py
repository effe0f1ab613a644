"""A shared trunk in torch, as one would write it by hand for these tasks, without exporting anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from benchmarks.framework.errors import BenchmarkError
from benchmarks.models.families import CLASSES, HEAD, parts_of, subset
from benchmarks.models.synthetic import random_task
from contract.dtypes import Array
from tuning.network.backbone import Backbone
from tuning.network.checkpoint import build_network
from tuning.network.normalise import Normalise

Step = Callable[[torch.Tensor], torch.Tensor]


class NoSteps(BenchmarkError):
    """A network for which nobody has written the steps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(f"A {type(network).__name__} has no steps to share by hand; only a ResNet and a VisionTransformer have.")


@dataclass(frozen=True)
class SharedTrunk:
    """trunk: steps from uint8 images on, run once. rests: the steps of each task behind it; those that are frozen are the same objects."""

    trunk: Sequence[Step]
    rests: Sequence[Sequence[Step]]

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


def steps_of(network: nn.Module) -> dict[str, Step]:
    """Return a timm network's steps in order: the blocks by their paths, the head as HEAD, and what is between. Raises NoSteps."""
    if isinstance(network, ResNet):
        return {**parts_of(network), HEAD: network.get_submodule("fc")}
    if isinstance(network, VisionTransformer):
        blocks: dict[str, Step] = {f"blocks.{name}": block for name, block in network.get_submodule("blocks").named_children()}
        return {"stem": _stem(network), **blocks, "pool": _pool(network), HEAD: network.get_submodule("head")}
    raise NoSteps(network)


def _stem(network: VisionTransformer) -> Step:
    return lambda image: network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(image))))


def _pool(network: VisionTransformer) -> Step:
    return lambda tokens: network.head_drop(network.fc_norm(network.pool(network.norm(tokens))))


def _apply(steps: Sequence[Step], values: torch.Tensor) -> torch.Tensor:
    for step in steps:
        values = step(values)
    return values
