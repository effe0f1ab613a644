"""Separate networks in torch, eager and compiled, as one would serve them without exporting anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from benchmarks.framework.errors import BenchmarkError
from benchmarks.models.families import CLASSES, subset
from benchmarks.models.synthetic import random_task
from contract.dtypes import Array
from exporter.sources.onnx_file import first_line
from tuning.network.backbone import Backbone
from tuning.network.checkpoint import build_network
from tuning.network.normalise import Normalise


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
