"""Multiply-accumulates, by torch's own counter: of a network's blocks for one image, and of a training for one image."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tuning.backbone import Backbone
from tuning.trainer import Prepared, Trainer

_ROWS = 2  # BatchNorm in training mode wants more than one


def block_macs(backbone: Backbone) -> tuple[int, dict[str, int]]:
    """Return the multiply-accumulates of the whole network for one image, and those of each block by its path."""
    size = backbone.spec.preprocessing
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone.network(torch.zeros(1, 3, size.height, size.width))
    counts = {name.partition(".")[2]: sum(kinds.values()) // 2 for name, kinds in counter.get_flop_counts().items()}
    return counter.get_total_flops() // 2, {block: counts.get(block, 0) for block in backbone.blocks}


def training_macs(trainer: Trainer, prepared: Prepared) -> int:
    """Return the multiply-accumulates of one image through one training step, forward and backward, the mean over the method's epochs.

    What is computed once before (frozen features) does not count. Not safe beside other threads that run networks: the counter hooks
    into all of them.
    """
    total = 0
    for index, phase in enumerate(prepared.method.phases):
        stage = trainer.fresh(prepared, index)
        total += phase.epochs * _step_macs(stage.module, trainer.sample(stage, _ROWS))
    return total // (_ROWS * prepared.method.epochs)


def _step_macs(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> int:
    with FlopCounterMode(display=False) as counter:
        module(*inputs).sum().backward()
    return int(counter.get_total_flops()) // 2
