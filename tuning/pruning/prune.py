"""Pruning a tuned task (arXiv 2302.06354): fewer channels inside its tuned blocks, then some more epochs on them and the head.

The frozen part stays as it is, so a pruned task shares the trunk like any other; what it runs by itself becomes smaller.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tuning.data.labelled import TaskData, require_classes
from tuning.errors import BadData, BadOptions
from tuning.network.backbone import Backbone
from tuning.network.checkpoint import TaskCheckpoint, build_network, inner_parts
from tuning.network.frozen_prefix import split_network
from tuning.pruning.channels import Cut, cut_channels
from tuning.training.features import FeatureStore
from tuning.training.fit import make_checkpoint
from tuning.training.loop import FitOptions, OnEpoch
from tuning.training.methods import Method, TrainingPhase
from tuning.training.trainer import Trained, Trainer


@dataclass(frozen=True)
class Measured:
    """test_accuracy: in [0, 1]. macs: multiply-accumulates for one image of what depends on a tuned weight, the task's branch.

    weight_bytes: of all tensors that the task owns.
    """

    test_accuracy: float
    macs: int
    weight_bytes: int


@dataclass(frozen=True, eq=False)
class Pruning:
    """A pruned task, and what it was before, right after the cut, and after training. cuts: what was cut."""

    checkpoint: TaskCheckpoint
    cuts: tuple[Cut, ...]
    before: Measured
    untrained: Measured
    after: Measured


def prune_task(
    backbone: Backbone,
    checkpoint: TaskCheckpoint,
    data: TaskData,
    options: FitOptions | None = None,
    ratio: float = 0.5,
    on_epoch: OnEpoch | None = None,
) -> Pruning:
    """Cut the share `ratio` of the channels inside the tuned blocks, those of the smallest L1 norm, and train blocks and head on.

    data: with the labels of the task; training goes over `options.epochs`.
    Raises BackboneMismatch, BadData, BadOptions, NonFiniteLoss, and UnsupportedNetwork when there is nothing to cut inside the blocks.
    """
    options = options or FitOptions()
    for kind in (checkpoint.kind, data.kind):
        require_classes(kind, "Pruning")
    if data.labels != checkpoint.labels:
        raise BadData(f"Data {data.name!r} has the labels {_first(data.labels)}, but the task has {_first(checkpoint.labels)}.")
    cut, cuts = cut_task(backbone, checkpoint, ratio)
    method = _method(checkpoint, options.epochs)
    with closing(FeatureStore(options.cache_bytes, options.cache_folder)) as store:
        trainer = Trainer(backbone, data, options, store)
        prepared = trainer.prepare(method, network=build_network(backbone, cut))
        trained = trainer.run(prepared, on_epoch=on_epoch)
        made = make_checkpoint(trainer, prepared, trained)
        pruned = replace(made, pruned=True, provenance={**made.provenance, "pruned_ratio": ratio})
        return Pruning(pruned, cuts, *(_measure(trainer, method, task) for task in (checkpoint, cut, pruned)))


def cut_task(backbone: Backbone, checkpoint: TaskCheckpoint, ratio: float) -> tuple[TaskCheckpoint, tuple[Cut, ...]]:
    """Return the task with the share `ratio` of the channels inside its tuned blocks cut out, not trained since, and what was cut.

    Its scores are still those of before. Raises BackboneMismatch, BadOptions, UnsupportedNetwork.
    """
    network = build_network(backbone, checkpoint)
    parts = inner_parts(backbone, checkpoint)
    if not parts:
        raise BadOptions("This task has no tuned block, so there is nothing in it to prune.")
    narrow, cuts = cut_channels(network, parts, ratio, _blank(backbone))
    state = narrow.state_dict()
    return replace(checkpoint, tensors={name: state[name] for name in checkpoint.tensors}, pruned=True), cuts


def branch_macs(network: nn.Module, owned: tuple[str, ...], image: Tensor) -> int:
    """Return the multiply-accumulates for one image of what depends on `owned` (paths): its convolutions and matrix products.

    image: one normalised image. Those of the whole network where it cannot be split before `owned`, or nothing is named.
    """
    split = split_network(network, owned, image.expand(3, -1, -1, -1)) if owned else None
    with torch.no_grad():
        module, inputs = (split.suffix, split.prefix(image)) if split else (network, (image,))
        with FlopCounterMode(display=False) as counter:  # it counts a multiply-add as two
            module(*inputs)
    return int(counter.get_total_flops()) // 2


def _method(checkpoint: TaskCheckpoint, epochs: int) -> Method:
    """Return how the task's own weights are trained on."""
    name = f"pruned {checkpoint.provenance.get('method', 'subtuning')}"
    phase = TrainingPhase(checkpoint.subset, epochs, everything=checkpoint.all_weights)
    return Method(name.replace("pruned pruned", "pruned"), (phase,), siamese=checkpoint.siamese)


def _measure(trainer: Trainer, method: Method, checkpoint: TaskCheckpoint) -> Measured:
    network = build_network(trainer.backbone, checkpoint)
    prepared = trainer.prepare(method, network=network)
    accuracy = trainer.score(Trained(prepared.network, prepared.stages[-1], loss=0.0, lr=0.0, seconds=0.0))
    owned = () if checkpoint.all_weights else prepared.owned
    size = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    return Measured(accuracy, branch_macs(network, owned, _blank(trainer.backbone)), size)


def _blank(backbone: Backbone) -> Tensor:
    size = backbone.spec.preprocessing
    return torch.zeros(1, 3, size.height, size.width)


def _first(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:3]) + (", ..." if len(labels) > 3 else "")
