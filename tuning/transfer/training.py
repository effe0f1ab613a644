"""The training loop of transfer: cross entropy plus, at every step, how far the student is from its teachers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn

from tuning.errors import BadOptions, NonFiniteLoss
from tuning.transfer.features import run_with_features

OnStep = Callable[[int, int], None]  # (steps done, steps in all)

_LEAST_ROWS = 3  # in a batch of two the centred features are opposite, whatever they are


@dataclass(frozen=True)
class TransferOptions:
    """How to train: Adam without weight decay, learning rates falling to zero along a cosine, no augmentation.

    The defaults are those of arXiv 2406.07337. beta: what the guide counts beside the cross entropy; the paper searches 3 to 30.
    lr: of the student, and of the map that distillation learns. weight_lr: of the teachers' weights. batch_size: images; the
    batches of an epoch are evened out. balanced: for aft, bring every teacher's features to one scale first (distillation always
    does). The paper does not: of several teachers the one with larger features then has more say, and a teacher with small ones has
    weights that mean little.
    """

    steps: int = 5000
    lr: float = 1e-4
    beta: float = 10.0
    weight_lr: float = 1e-2
    batch_size: int = 128
    seed: int = 0
    balanced: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadOptions(f"steps must be at least 1, not {self.steps}.")
        if self.batch_size < _LEAST_ROWS:
            raise BadOptions(f"batch_size must be at least {_LEAST_ROWS} to compare kernels, not {self.batch_size}.")
        for name, rate in (("lr", self.lr), ("weight_lr", self.weight_lr)):
            if not (rate > 0 and math.isfinite(rate)):
                raise BadOptions(f"{name} must be positive, not {rate}.")
        if not (self.beta >= 0 and math.isfinite(self.beta)):
            raise BadOptions(f"beta must not be negative, not {self.beta}.")
        if not 0 <= self.seed < 2**63:
            raise BadOptions(f"seed must be between 0 and 2**63 - 1, not {self.seed}.")


@dataclass(frozen=True, eq=False)
class Guidance:
    """What is added to the cross entropy: beta times `module(phi, psi)`.

    features: psi of all training images, (n, dimensions). lr: of the module's own parameters.
    """

    module: nn.Module
    features: Tensor
    lr: float


@dataclass(frozen=True, eq=False)
class Student:
    """What trains: `network`, a copy in training mode with gradients on, `head` its module path, `normalise` before it."""

    network: nn.Module
    head: str
    normalise: nn.Module


def train_guided(
    student: Student, images: Tensor, targets: Tensor, guidance: Guidance | None, options: TransferOptions, on_step: OnStep | None
) -> None:
    """Train all parameters of the student, and those of the guide, in place.

    images: uint8 (n, height, width, 3). targets: int64 (n,). Uses torch's global random state for dropout and the like.
    Raises NonFiniteLoss; UnsupportedNetwork.
    """
    optimiser = torch.optim.Adam(_parameter_groups(student, guidance, options))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.steps)
    for step, rows in zip(range(1, options.steps + 1), batches(len(targets), options.batch_size, options.seed), strict=False):
        logits, phi = run_with_features(student.network, student.head, student.normalise(images[rows]))
        loss = nn.functional.cross_entropy(logits, targets[rows])
        if guidance is not None:
            loss = loss + options.beta * guidance.module(phi, guidance.features[rows])
        if not math.isfinite(float(loss.detach())):
            raise NonFiniteLoss(step, options.lr)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if on_step:
            on_step(step, options.steps)


def batches(rows: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield the row numbers of one batch after the other, without end; every epoch has each row once, in another order.

    No batch is over `batch_size`, and none has fewer than three rows if there are three.
    """
    shuffle = torch.Generator().manual_seed(seed)
    per_epoch = max(1, min(math.ceil(rows / batch_size), rows // _LEAST_ROWS))
    for _ in count():
        yield from torch.tensor_split(torch.randperm(rows, generator=shuffle), per_epoch)


def _parameter_groups(student: Student, guidance: Guidance | None, options: TransferOptions) -> list[dict[str, object]]:
    groups: list[dict[str, object]] = [{"params": list(student.network.parameters()), "lr": options.lr}]
    if guidance is not None:
        groups.append({"params": list(guidance.module.parameters()), "lr": guidance.lr})
    return groups
