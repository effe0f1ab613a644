"""The training loop and the measure of what it reached. Knows tensors and modules, nothing of blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serving.preprocessing import Preprocessing
from tuning.data import Split
from tuning.errors import BadOptions, NonFiniteLoss, UnsupportedNetwork
from tuning.normalise import Normalise

OnEpoch = Callable[[int, int], None]  # (epochs done, epochs in all)


@dataclass(frozen=True)
class FitOptions:
    """How to train: AdamW, the learning rate falling to zero along a cosine, no augmentation.

    lr None: 1e-2 for a linear probe, 1e-3 for everything else. batch_size: images; the last batches are evened out.
    weight_decay: of weights with two dimensions or more; biases and norms have none.
    cache_bytes: the most memory for features that are computed once; with more than that the whole network runs every time.
    """

    epochs: int = 20
    lr: float | None = None
    weight_decay: float = 1e-2
    batch_size: int = 64
    seed: int = 0
    cache_bytes: int = 2 * 1024**3

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise BadOptions(f"epochs must be at least 1 and batch_size at least 2, not {self.epochs} and {self.batch_size}.")
        if self.lr is not None and not (self.lr > 0 and math.isfinite(self.lr)):
            raise BadOptions(f"lr must be positive, not {self.lr}.")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise BadOptions(f"weight_decay must not be negative, not {self.weight_decay}.")
        if not 0 <= self.seed < 2**63:
            raise BadOptions(f"seed must be between 0 and 2**63 - 1, not {self.seed}.")


def train(
    module: nn.Module, inputs: Sequence[Tensor], targets: Tensor, options: FitOptions, lr: float, on_epoch: OnEpoch | None
) -> float:
    """Train the parameters of `module` that require gradients; return the mean loss over the last epoch.

    inputs: tensors of n rows each, which `module` takes as its arguments. targets: int64 (n,). The caller has set the modes
    (train or eval) of the module's parts. The global random state is as before afterwards. Raises NonFiniteLoss.
    """
    with torch.random.fork_rng(devices=[]):  # for dropout and the like
        torch.manual_seed(options.seed)
        shuffle = torch.Generator().manual_seed(options.seed)
        steps_per_epoch = _count_batches(len(targets), options.batch_size)
        optimiser = torch.optim.AdamW(_parameter_groups(module, options.weight_decay), lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.epochs * steps_per_epoch)
        loss = math.inf
        for epoch in range(options.epochs):
            total = 0.0
            rows = torch.randperm(len(targets), generator=shuffle)
            for index, batch in enumerate(torch.tensor_split(rows, steps_per_epoch)):
                value = _step(module, [t[batch] for t in inputs], targets[batch], optimiser)
                schedule.step()
                if not math.isfinite(value):
                    raise NonFiniteLoss(epoch * steps_per_epoch + index + 1, lr)
                total += value * len(batch)
            loss = total / len(targets)
            if on_epoch:
                on_epoch(epoch + 1, options.epochs)
    return loss


def evaluate(network: nn.Module, split: Split, preprocessing: Preprocessing, batch_size: int = 256) -> float:
    """Return the share of images in [0, 1] that `network`, in eval mode, puts into the right class.

    network: takes normalised images, as `build_network` returns it; `preprocessing` normalises.
    """
    module = nn.Sequential(Normalise(preprocessing), network)
    was_training = network.training
    try:
        return accuracy(module.eval(), (torch.from_numpy(split.images),), torch.from_numpy(split.targets), batch_size)
    finally:
        network.train(was_training)


@torch.inference_mode()
def accuracy(module: nn.Module, inputs: Sequence[Tensor], targets: Tensor, batch_size: int) -> float:
    """Return the share of rows that `module` puts into the right class; the modes of its parts are the caller's."""
    right = 0
    for start in range(0, len(targets), batch_size):
        rows = slice(start, start + batch_size)
        right += int((module(*(t[rows] for t in inputs)).argmax(1) == targets[rows]).sum())
    return right / len(targets)


def _step(module: nn.Module, inputs: Iterable[Tensor], targets: Tensor, optimiser: torch.optim.Optimizer) -> float:
    """Take one step; return the loss before it. A loss that is not finite is not stepped on."""
    logits = module(*inputs)
    if not isinstance(logits, Tensor):
        raise UnsupportedNetwork(
            "In training this network returns more than class scores (auxiliary heads, say); build it without."
        )
    loss = nn.functional.cross_entropy(logits, targets)
    value = float(loss.detach())
    if math.isfinite(value):
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return value


def _count_batches(rows: int, batch_size: int) -> int:
    """Return how many batches an epoch has: none over the size, none of a single row (BatchNorm learns nothing from one)."""
    return max(1, min(math.ceil(rows / batch_size), rows // 2))


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    parameters = list(_trainable(module))
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _trainable(module: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for parameter in module.parameters() if parameter.requires_grad)
