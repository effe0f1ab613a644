"""One training step, to learn what a prepared method costs and whether it draws random numbers. Nothing is kept of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tuning.training.compute import Compute, seeded
from tuning.training.macs import counted_macs
from tuning.training.trainer import Prepared, Trainer

_ROWS = 2  # images in the step: BatchNorm in training mode refuses a single one where maps are 1 x 1


@dataclass(frozen=True)
class DryRun:
    """macs_per_image: multiply-accumulates of one image through a step, forward and backward, the mean over the method's epochs.

    What is computed once before (frozen features) does not count. random: whether steps use torch's random numbers (dropout, say),
    which threads would take from each other.
    """

    macs_per_image: int
    random: bool


def dry_run(trainer: Trainer, prepared: Prepared) -> DryRun:
    """Try a step of each phase. Not safe beside other threads that run networks: the counter hooks into all of them."""
    macs, random = 0, False
    with seeded(0, trainer.compute):
        for index, phase in enumerate(prepared.method.phases):
            stage = trainer.fresh(prepared, index)
            sample = trainer.sample(stage, _ROWS)
            before = _random_state(trainer.compute)
            with counted_macs() as count:
                stage.module(*sample).sum().backward()
            macs += phase.epochs * count()
            random |= not torch.equal(before, _random_state(trainer.compute))
    return DryRun(macs // (_ROWS * prepared.method.epochs), random)


def _random_state(compute: Compute) -> Tensor:
    """Return the state of the generators that dropout on the device draws from."""
    state = torch.get_rng_state()
    return torch.cat([state, torch.cuda.get_rng_state(compute.device)]) if compute.device.startswith("cuda") else state
