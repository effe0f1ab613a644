"""SubTuning of one subset of blocks (arXiv 2302.06354), and training a backbone from nothing.

The tuned blocks start from the pretrained weights, the head is new, everything else is frozen: no gradients, eval mode, and so
bit-identical afterwards, BatchNorm's running statistics included. Tuned blocks train and own their running statistics.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from serving.preprocessing import Preprocessing
from tuning.backbone import Backbone, BackboneSpec
from tuning.blocks import is_under, replace_head
from tuning.checkpoint import Provenance, TaskCheckpoint, tuned_names
from tuning.data import Split, TaskData
from tuning.errors import BadData, BadOptions, UnknownBlock
from tuning.libraries import check_forward, create_network, split_name, versions
from tuning.normalise import Normalise
from tuning.replay import Replay, split_network
from tuning.training import FitOptions, OnEpoch, accuracy, evaluate, train
from tuning.weights import hash_weights

__all__ = ["FitOptions", "Subset", "evaluate", "find_subset", "fit", "pretrain"]

Subset = Sequence[str] | Literal["none", "all"]

_PROBE_LR = 1e-2
_TUNING_LR = 1e-3
_PROBE_ROWS = 3  # images to try a split of the network on
_FEATURE_BATCH = 128


@dataclass(frozen=True)
class _Problem:
    """What the loop trains: a module, and the inputs of both splits as that module takes them."""

    module: nn.Module
    train: tuple[Tensor, ...]
    test: tuple[Tensor, ...]
    replayed: bool


def fit(
    backbone: Backbone,
    data: TaskData,
    subset: Subset,
    options: FitOptions | None = None,
    *,
    all_weights: bool = False,
    on_epoch: OnEpoch | None = None,
) -> TaskCheckpoint:
    """Tune the blocks `subset` and a new head on `data`; the backbone is left as it was.

    subset: module paths out of `backbone.blocks`, "none" (a linear probe) or "all" (every block, as the paper's full finetuning).
    all_weights: with "all", also the stem, tokens and norms outside blocks; the checkpoint then holds every tensor.
    The same arguments give the same weights (on one machine, with one number of threads).
    Raises UnknownBlock, BadData, BadOptions, NonFiniteLoss.
    """
    options = options or FitOptions()
    blocks = find_subset(backbone.blocks, subset)
    if all_weights and subset != "all":
        raise BadOptions('all_weights tunes the whole network; use it with the subset "all".')
    _check_data(data, backbone.spec.preprocessing)
    network = _prepared(backbone, blocks, len(data.labels), options.seed, all_weights)
    problem = _find_problem(backbone, network, blocks, data, options, all_weights)
    _set_modes(network, blocks, all_weights)
    lr = options.lr or (_TUNING_LR if blocks or all_weights else _PROBE_LR)
    train_loss = train(problem.module, problem.train, torch.from_numpy(data.train.targets), options, lr, on_epoch)
    network.eval()
    measured = {
        "test_accuracy": _accuracy(problem.module, problem.test, data.test, options),
        "train_accuracy": _accuracy(problem.module, problem.train, data.train, options),
    }
    state = network.state_dict()
    return TaskCheckpoint(
        tensors={name: state[name].detach().clone() for name in tuned_names(backbone, blocks, all_weights)},
        backbone=backbone.spec,
        subset=blocks,
        labels=data.labels,
        scores={**measured, "train_loss": train_loss},
        seed=options.seed,
        provenance=_provenance(data, blocks, options, lr, all_weights, problem.replayed),
        all_weights=all_weights,
    )


def pretrain(
    name: str,
    data: TaskData,
    preprocessing: Preprocessing,
    options: FitOptions | None = None,
    *,
    network_options: Mapping[str, Any] | None = None,
    on_epoch: OnEpoch | None = None,
) -> Backbone:
    """Return the network `name` (a timm name or torchvision/NAME) trained from random weights, all of them, on `data`.

    data: made with `preprocessing`. network_options: keyword arguments of the library's constructor.
    Raises UnknownBackbone, BackboneOptions, UnsupportedNetwork, BadData, NonFiniteLoss.
    """
    options = options or FitOptions()
    _check_data(data, preprocessing)
    library, bare_name = split_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = create_network(library, bare_name, network_options or {}, len(data.labels), weights=False)
    check_forward(network, bare_name, preprocessing)
    module = nn.Sequential(Normalise(preprocessing), network).train()
    images, targets = torch.from_numpy(data.train.images), torch.from_numpy(data.train.targets)
    train(module, (images,), targets, options, options.lr or _TUNING_LR, on_epoch)
    spec = BackboneSpec(
        library=library,
        name=bare_name,
        options=network_options or {},
        num_classes=len(data.labels),
        preprocessing=preprocessing,
        weights=f"pretrained on {data.name}, {options.epochs} epochs, seed {options.seed}",
        weights_sha256=hash_weights(network),
    )
    return Backbone(spec, network.eval().requires_grad_(False))


def find_subset(known: tuple[str, ...], subset: Subset) -> tuple[str, ...]:
    """Return the blocks meant by `subset`, each once, in forward order. Raises UnknownBlock."""
    if subset == "all":
        return known
    wanted = () if subset == "none" else (subset,) if isinstance(subset, str) else tuple(subset)
    for block in wanted:
        if block not in known:
            raise UnknownBlock(block, known)
    return tuple(block for block in known if block in wanted)


def _check_data(data: TaskData, preprocessing: Preprocessing) -> None:
    if len(data.train) < 2 or not len(data.test):
        raise BadData(f"Data {data.name!r} needs at least 2 training images and 1 test image.")
    wanted = (preprocessing.height, preprocessing.width)
    for split in (data.train, data.test):
        if split.images.shape[1:3] != wanted:
            raise BadData(
                f"Data {data.name!r} has images of {split.images.shape[1:3]} pixels, but the backbone takes {wanted}; "
                "make the data with the backbone's preprocessing."
            )


def _prepared(backbone: Backbone, blocks: tuple[str, ...], classes: int, seed: int, all_weights: bool) -> nn.Module:
    """Return a copy of the network with a new head, in eval mode, gradients on for what is tuned."""
    network = copy.deepcopy(backbone.network)
    tuned = blocks + replace_head(network, classes, seed)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(all_weights or is_under(name, tuned))
    return network.eval()


def _set_modes(network: nn.Module, blocks: tuple[str, ...], all_weights: bool) -> None:
    """Put what is tuned into training mode. The rest stays in eval mode: its statistics do not move."""
    network.train(all_weights)
    for block in blocks:
        network.get_submodule(block).train()


def _find_problem(
    backbone: Backbone, network: nn.Module, blocks: tuple[str, ...], data: TaskData, options: FitOptions, all_weights: bool
) -> _Problem:
    """Return the shortest module that gives the same result: the part from the first tuned block on, or the whole network."""
    normalise = Normalise(backbone.spec.preprocessing)
    train_images, test_images = torch.from_numpy(data.train.images), torch.from_numpy(data.test.images)
    replay = None if all_weights else _try_split(network, blocks + backbone.head, normalise, train_images)
    if replay is not None and _fits(replay, normalise, train_images, len(data.train) + len(data.test), options.cache_bytes):
        head = nn.Sequential(normalise, replay.prefix)
        return _Problem(replay.suffix, _features(head, train_images), _features(head, test_images), True)
    return _Problem(nn.Sequential(normalise, network), (train_images,), (test_images,), False)


def _try_split(network: nn.Module, trainable: tuple[str, ...], normalise: nn.Module, images: Tensor) -> Replay | None:
    probe = images[torch.arange(_PROBE_ROWS) % len(images)]
    return split_network(network, trainable, normalise(probe))


@torch.no_grad()
def _fits(replay: Replay, normalise: nn.Module, images: Tensor, rows: int, limit_bytes: int) -> bool:
    row_bytes: int = sum(feature.nbytes for feature in replay.prefix(normalise(images[:1])))
    return row_bytes * rows <= limit_bytes


@torch.no_grad()
def _features(prefix: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor) -> tuple[Tensor, ...]:
    """Return the features of all images, computed in batches."""
    batches = [prefix(batch) for batch in torch.split(images, _FEATURE_BATCH)]
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def _accuracy(module: nn.Module, inputs: tuple[Tensor, ...], split: Split, options: FitOptions) -> float:
    return accuracy(module, inputs, torch.from_numpy(split.targets), options.batch_size)


def _provenance(
    data: TaskData, blocks: tuple[str, ...], options: FitOptions, lr: float, all_weights: bool, replayed: bool
) -> Provenance:
    method = "full finetuning" if all_weights else "subtuning" if blocks else "linear probe"
    return {
        "method": method,
        "data": data.name,
        "train_images": len(data.train),
        "test_images": len(data.test),
        "epochs": options.epochs,
        "lr": lr,
        "weight_decay": options.weight_decay,
        "batch_size": options.batch_size,
        "features_computed_once": replayed,
        **versions(),
    }
