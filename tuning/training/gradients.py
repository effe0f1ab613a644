"""The gradients of blocks at the pretrained weights: one pass over the training images, for all blocks at once.

The head comes first: under one that knows nothing, gradients say nothing about the task. It is trained alone, on frozen features; then
the gradient of the mean loss is summed over the images, in eval mode, so that BatchNorm's statistics stay where they are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuning.data.folds import Rows
from tuning.training.compute import Compute
from tuning.training.loop import Examples, OnEpoch
from tuning.training.macs import counted_macs
from tuning.training.trainer import Prepared, Trainer


@dataclass(frozen=True)
class BlockGradients:
    """norms: by measure, of each block in order. "relative": the gradient's norm over that of the weights. "norm": the gradient's.
    "sum": of the absolute values of the gradient, what a step of Adam wins at first order for each unit of learning rate.

    epochs, macs: what head and gradients took; the pass counts as an epoch.
    """

    norms: Mapping[str, tuple[float, ...]]
    epochs: int
    macs: int


def block_gradients(
    trainer: Trainer, probe: Prepared, probe_macs: int, rows: Rows, seed: int, on_epoch: OnEpoch | None = None
) -> BlockGradients:
    """Return the gradients of the backbone's blocks on the training images `rows`.

    probe: a linear probe made ready, whose training takes `probe_macs`. Not safe beside other threads that run networks: the counter hooks
    into all of them. Raises NonFiniteLoss.
    """
    trained = trainer.run(probe, rows, seed, on_epoch=on_epoch)
    network = copy.deepcopy(trained.network).eval().requires_grad_(False)
    parameters = [_values_of(network.get_submodule(block)) for block in trainer.backbone.blocks]
    whole, examples = trainer.whole(network, rows)
    with counted_macs() as count:
        _sum_gradients(whole, examples, trainer.options.batch_size, trainer.compute)
    norms = {measure: tuple(read(block) for block in parameters) for measure, read in _MEASURES.items()}
    return BlockGradients(norms, probe.method.epochs + 1, probe_macs + count())


def _values_of(block: nn.Module) -> list[nn.Parameter]:
    return list(block.requires_grad_(True).parameters())


def _sum_gradients(network: nn.Module, examples: Examples, batch_size: int, compute: Compute) -> None:
    """Leave the gradient of the mean loss over all rows in the parameters."""
    for rows in torch.split(examples.rows, batch_size):
        inputs, targets = examples.batch(rows, 0, compute)
        with compute.autocast():
            scores: Tensor = network(*inputs)
        loss = examples.loss(scores.float(), targets) * (len(rows) / len(examples.rows))
        loss.backward()  # type: ignore[no-untyped-call]


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([tensor.detach().float().norm() for tensor in tensors]).norm()) if tensors else 0.0


def _gradients(block: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in block if parameter.grad is not None]


def _relative(block: Sequence[nn.Parameter]) -> float:
    size = _norm(block)
    return _norm(_gradients(block)) / size if size > 0 else 0.0


def _absolute_sum(block: Sequence[nn.Parameter]) -> float:
    return sum(float(gradient.abs().sum()) for gradient in _gradients(block))


_MEASURES = {"relative": _relative, "norm": lambda block: _norm(_gradients(block)), "sum": _absolute_sum}
