"""Multiply-accumulates, by torch's own counter: of a network's blocks for one image."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from tuning.network.backbone import Backbone


def block_macs(backbone: Backbone) -> tuple[int, dict[str, int]]:
    """Return the multiply-accumulates of the whole network for one image, and those of each block by its path."""
    size = backbone.spec.preprocessing
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone.network(torch.zeros(1, 3, size.height, size.width))
    counts = {name.partition(".")[2]: sum(kinds.values()) // 2 for name, kinds in counter.get_flop_counts().items()}
    return counter.get_total_flops() // 2, {block: counts.get(block, 0) for block in backbone.blocks}
