"""The training loop and the measure of what it reached. Knows tensors and modules, nothing of blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from contract.preprocessing import Preprocessing
from tuning.data.labelled import Split
from tuning.errors import BadOptions, NonFiniteLoss, UnsupportedNetwork
from tuning.network.normalise import Normalise
from tuning.training.compute import Compute, Precision

OnEpoch = Callable[[int, int], None]  # (epochs done, epochs in all)

_RGN_BATCHES = 5  # batches over which relative gradient norms are averaged


@dataclass(frozen=True)
class FitOptions:
    """How to train: AdamW, the learning rate falling to zero along a cosine.

    lr None: 1e-2 for a linear probe, 1e-3 for everything else. batch_size: images; the last batches are evened out.
    weight_decay: of weights with two dimensions or more; biases and norms have none.
    views: so many augmented views are drawn of every training image beforehand, and epochs go through them in turn; 0: no augmentation.
    flip: views may be mirrored. cache_bytes: the most memory for features that are computed once; 0 turns that off.
    cache_folder: where features beyond that go, as memory-mapped files; None: the whole network runs every time instead.
    device, precision: as `find_compute` takes them.
    """

    epochs: int = 20
    lr: float | None = None
    weight_decay: float = 1e-2
    batch_size: int = 64
    seed: int = 0
    views: int = 0
    flip: bool = False
    cache_bytes: int = 2 * 1024**3
    cache_folder: Path | None = None
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise BadOptions(f"epochs must be at least 1 and batch_size at least 2, not {self.epochs} and {self.batch_size}.")
        if self.lr is not None and not (self.lr > 0 and math.isfinite(self.lr)):
            raise BadOptions(f"lr must be positive, not {self.lr}.")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise BadOptions(f"weight_decay must not be negative, not {self.weight_decay}.")
        if not 0 <= self.seed < 2**63:
            raise BadOptions(f"seed must be between 0 and 2**63 - 1, not {self.seed}.")
        if self.views < 0 or self.cache_bytes < 0:
            raise BadOptions(f"views and cache_bytes must not be negative, not {self.views} and {self.cache_bytes}.")


@dataclass(frozen=True)
class Examples:
    """What is trained on.

    inputs: tensors of views * n rows each, view after view, which the module takes as its arguments. targets: int64 (n,), or what
    `loss` takes beside float32 scores: it gives a scalar.
    rows: int64, indices below n: the examples that take part.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    rows: Tensor
    views: int = 1
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy

    def batch(self, rows: Tensor, epoch: int, compute: Compute) -> tuple[list[Tensor], Tensor]:
        """Return the inputs and targets of `rows` in the view of this epoch, on the device."""
        shown = rows + (epoch % self.views) * len(self.targets)
        return [compute.put(t[shown]) for t in self.inputs], compute.put(self.targets[rows])


@dataclass(frozen=True)
class Course:
    """The learning rate over a stretch of training: `peak` times a cosine from 1 to 0 over `epochs_in_all`, of which `epochs` are run
    from `first_epoch` on. relative_gradients: scaled per parameter by its gradient's norm over its own (see `train`).
    """

    peak: float
    epochs: int
    first_epoch: int = 0
    epochs_in_all: int = 0
    relative_gradients: bool = False

    def lr(self, epoch: int, progress: float) -> float:
        """Return the rate at `progress` (0 to 1) through `epoch`, counted from the stretch's first."""
        return (
            self.peak * (1 + math.cos(math.pi * (self.first_epoch + epoch + progress) / (self.epochs_in_all or self.epochs))) / 2
        )


def train(
    module: nn.Module, examples: Examples, options: FitOptions, course: Course, compute: Compute, on_epoch: OnEpoch | None = None
) -> float:
    """Train the parameters of `module` that require gradients; return the mean loss over the last epoch.

    The caller has set the modes (train or eval) of the module's parts, and torch's global random state, which dropout uses.
    With `course.relative_gradients`, each parameter's rate is scaled at the start of every epoch by the norm of its gradient over the
    norm of its values, relative to the largest (Auto-RGN of surgical finetuning, arXiv 2210.11466). Raises NonFiniteLoss.
    """
    count = len(examples.rows)
    shuffle = torch.Generator().manual_seed(options.seed)
    for _ in range(course.first_epoch):  # go on where the stretch before has stopped: no two epochs in one order
        torch.randperm(count, generator=shuffle)
    steps = _count_batches(count, options.batch_size)
    groups = _parameter_groups(module, options.weight_decay, course.relative_gradients)
    optimiser = torch.optim.AdamW(groups, lr=course.peak, fused=True)
    loss = math.inf
    for epoch in range(course.epochs):
        order = examples.rows[torch.randperm(count, generator=shuffle)]
        batches = torch.tensor_split(order, steps)
        if course.relative_gradients:
            _weigh_groups(module, examples, batches[:_RGN_BATCHES], course.first_epoch + epoch, optimiser, compute)
        losses = []
        for index, rows in enumerate(batches):
            _set_lr(optimiser, course.lr(epoch, index / steps))
            losses.append(_step(module, examples, rows, course.first_epoch + epoch, optimiser, compute) * len(rows))
            if not math.isfinite(losses[-1]):
                raise NonFiniteLoss(epoch * steps + index + 1, course.peak)
        loss = sum(losses) / count
        if on_epoch:
            on_epoch(epoch + 1, course.epochs)
    return loss


def evaluate(network: nn.Module, split: Split, preprocessing: Preprocessing, batch_size: int = 256) -> float:
    """Return the share of images in [0, 1] that `network`, in eval mode, puts into the right class.

    network: takes normalised images, as `build_network` returns it; `preprocessing` normalises.
    """
    module = nn.Sequential(Normalise(preprocessing), network)
    was_training = network.training
    try:
        images, targets = torch.from_numpy(split.images), torch.from_numpy(split.targets)
        rows = torch.arange(len(targets))
        return accuracy(module.eval(), (images,), targets, rows, batch_size, Compute("cpu", channels_last=False))
    finally:
        network.train(was_training)


def accuracy(
    module: nn.Module, inputs: Sequence[Tensor], targets: Tensor, rows: Tensor, batch_size: int, compute: Compute
) -> float:
    """Return the share of `rows` that `module` puts into the right class; the modes of its parts are the caller's."""
    predicted = logits(module, inputs, rows, batch_size, compute).argmax(1)
    return int((predicted == targets[rows]).sum()) / len(rows)


@torch.inference_mode()
def logits(module: nn.Module, inputs: Sequence[Tensor], rows: Tensor, batch_size: int, compute: Compute) -> Tensor:
    """Return what `module` gives for `rows` of the inputs, float32 (rows, classes) on the CPU, computed in batches."""
    parts = []
    for batch in torch.split(rows, batch_size):
        # Taken by index, so copied: a module may work in place (`x += shortcut`), and inputs may be kept features.
        with compute.autocast():
            part = module(*(compute.put(t[batch]) for t in inputs))
        parts.append(part.float().cpu())
    return torch.cat(parts)


def _step(
    module: nn.Module, examples: Examples, rows: Tensor, epoch: int, optimiser: torch.optim.Optimizer, compute: Compute
) -> float:
    """Take one step; return the loss before it. A loss that is not finite is not stepped on."""
    optimiser.zero_grad(set_to_none=True)
    loss = _loss(module, examples, rows, epoch, compute)
    value = float(loss.detach())
    if math.isfinite(value):
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return value


def _loss(module: nn.Module, examples: Examples, rows: Tensor, epoch: int, compute: Compute) -> Tensor:
    inputs, targets = examples.batch(rows, epoch, compute)
    with compute.autocast():
        scores = module(*inputs)
    if not isinstance(scores, Tensor):
        raise UnsupportedNetwork(
            "In training this network returns more than class scores (auxiliary heads, say); build it without."
        )
    return examples.loss(scores.float(), targets)


def _count_batches(rows: int, batch_size: int) -> int:
    """Return how many batches an epoch has: none over the size, none of a single row (BatchNorm learns nothing from one)."""
    return max(1, min(math.ceil(rows / batch_size), rows // 2))


def _parameter_groups(module: nn.Module, weight_decay: float, one_each: bool) -> list[dict[str, object]]:
    """Return the optimiser's groups: by whether they decay, or a group for each parameter. `weight` scales a group's learning rate."""
    parameters = list(_trainable(module))
    if one_each:
        return [{"params": [p], "weight_decay": weight_decay if p.ndim >= 2 else 0.0, "weight": 1.0} for p in parameters]
    groups = (
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay, "weight": 1.0},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "weight": 1.0},
    )
    return [group for group in groups if group["params"]]


def _set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr * group["weight"]


def _weigh_groups(
    module: nn.Module,
    examples: Examples,
    batches: Sequence[Tensor],
    epoch: int,
    optimiser: torch.optim.Optimizer,
    compute: Compute,
) -> None:
    """Set each group's weight to its relative gradient norm over the largest, averaged over `batches`."""
    norms = torch.zeros(len(optimiser.param_groups))
    for rows in batches:
        optimiser.zero_grad(set_to_none=True)
        _loss(module, examples, rows, epoch, compute).backward()  # type: ignore[no-untyped-call]
        norms += torch.tensor([_relative_gradient(group["params"][0]) for group in optimiser.param_groups])
    optimiser.zero_grad(set_to_none=True)
    largest = float(norms.max())
    for group, norm in zip(optimiser.param_groups, norms.tolist(), strict=True):
        group["weight"] = norm / largest if largest > 0 else 1.0


def _relative_gradient(parameter: nn.Parameter) -> float:
    if parameter.grad is None:
        return 0.0
    size = float(parameter.detach().norm())
    return float(parameter.grad.norm()) / size if size > 0 else 0.0


def _trainable(module: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for parameter in module.parameters() if parameter.requires_grad)
