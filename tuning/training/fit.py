"""Tuning one task, by SubTuning (arXiv 2302.06354) or another method, and training a backbone from nothing.

The tuned blocks start from the pretrained weights, the head is new, everything else is frozen: no gradients, eval mode, and so
bit-identical afterwards, BatchNorm's running statistics included. Tuned blocks train and own their running statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from contract.kinds.kind import Kind
from contract.preprocessing import Preprocessing
from tuning.data.folds import Rows
from tuning.data.labelled import TaskData, require_classes
from tuning.errors import BadOptions
from tuning.kinds.values import ValuesObjective
from tuning.network.backbone import Backbone, BackboneSpec
from tuning.network.checkpoint import Provenance, TaskCheckpoint, build_network
from tuning.network.libraries import check_forward, create_network, split_name, versions
from tuning.network.normalise import Normalise
from tuning.network.paths import find_paths
from tuning.network.weights import hash_weights
from tuning.training.compute import Compute
from tuning.training.features import FeatureStore
from tuning.training.loop import Course, Examples, FitOptions, OnEpoch, evaluate, train
from tuning.training.methods import TUNING_LR, Method, all_blocks, full_finetuning, lp_ft, subtuning
from tuning.training.trainer import Prepared, Trained, Trainer, check_data, own_tensors

__all__ = ["FitOptions", "Subset", "choose_method", "evaluate", "find_subset", "fit", "fit_method", "make_checkpoint", "pretrain"]

_CHECKED = 3  # test images on which a network of values is checked

Subset = Sequence[str] | Literal["none", "all"]


def fit(
    backbone: Backbone,
    data: TaskData,
    subset: Subset,
    options: FitOptions | None = None,
    *,
    all_weights: bool = False,
    siamese: bool = False,
    warm_head: bool = False,
    on_epoch: OnEpoch | None = None,
) -> TaskCheckpoint:
    """Tune `subset` and a new head on `data`; the backbone is left as it was.

    subset: blocks, other modules or parameters, or patterns of such, as `tuning.network.paths.find_paths` takes them; "none" (a linear
    probe); or "all" (every block, as the paper's full finetuning).
    all_weights: with "all", also the stem, tokens and norms outside blocks; the checkpoint then holds every tensor.
    siamese: the head sees the frozen features beside the tuned ones. warm_head: half of the epochs go to the head alone first (LP-FT).
    The same arguments give the same weights (on one machine, with one number of threads).
    Raises UnknownBlock, BadData, BadOptions, NonFiniteLoss.
    """
    options = options or FitOptions()
    method = choose_method(backbone, subset, options.epochs, all_weights=all_weights, siamese=siamese, warm_head=warm_head)
    return fit_method(backbone, data, method, options, on_epoch)


def choose_method(
    backbone: Backbone, subset: Subset, epochs: int, *, all_weights: bool = False, siamese: bool = False, warm_head: bool = False
) -> Method:
    """Return the method that `fit` carries out for these arguments. Raises UnknownBlock, BadOptions."""
    paths = find_subset(backbone, subset)
    if all_weights and subset != "all":
        raise BadOptions('all_weights tunes the whole network; use it with the subset "all".')
    if all_weights and siamese:
        raise BadOptions("A Siamese head is for a few tuned blocks beside the frozen ones; use it without all_weights.")
    if all_weights:
        return lp_ft(epochs) if warm_head else full_finetuning(epochs)
    if subset == "all" and not siamese:
        return all_blocks(paths, epochs, warm_head=warm_head)
    return subtuning(paths, epochs, siamese=siamese, warm_head=warm_head)


def fit_method(
    backbone: Backbone, data: TaskData, method: Method, options: FitOptions, on_epoch: OnEpoch | None = None
) -> TaskCheckpoint:
    """Carry out `method` on `data`; the backbone is left as it was. Raises BadData, NonFiniteLoss, UnsupportedNetwork."""
    with closing(FeatureStore(options.cache_bytes, options.cache_folder)) as store:
        trainer = Trainer(backbone, data, options, store)
        prepared = trainer.prepare(method)
        trained = trainer.run(prepared, on_epoch=on_epoch)
        return make_checkpoint(trainer, prepared, trained)


def make_checkpoint(
    trainer: Trainer, prepared: Prepared, trained: Trained, rows: Rows | None = None, kind: Kind | None = None
) -> TaskCheckpoint:
    """Return what was trained as a task checkpoint, with what it reached: "test_accuracy", say. Raises UnsupportedNetwork.

    rows: of the training images that were learnt from; None: all. kind: with parameters that were found; None: the data's.
    """
    data, options, method = trainer.data, trainer.options, prepared.method
    reached = (("test", trainer.measure(trained, "test")), ("train", trainer.measure(trained, "training", rows)))
    scores = {f"{which}_{name}": value for which, found in reached for name, value in found.items()} | {
        "train_loss": trained.loss
    }
    checkpoint = TaskCheckpoint(
        tensors=trainer.objective.finish(own_tensors(prepared, trained), prepared.head),
        backbone=trainer.backbone.spec,
        subset=method.paths,
        labels=data.labels,
        scores=scores,
        seed=options.seed,
        provenance={
            **_provenance(data, method, options, trained.lr, prepared.replayed),
            "train_images": len(data.train) if rows is None else len(rows),
        },
        all_weights=method.all_weights,
        siamese=method.siamese,
        kind=kind or data.kind,
    )
    if isinstance(trainer.objective, ValuesObjective):
        _check_values(trainer, trainer.objective, trained, checkpoint)
    return checkpoint


def _check_values(trainer: Trainer, objective: ValuesObjective, trained: Trained, checkpoint: TaskCheckpoint) -> None:
    """Raise UnsupportedNetwork unless the task's network, built anew, gives the values that training has reached."""
    rows = np.arange(min(_CHECKED, len(trainer.data.test)))
    network = nn.Sequential(Normalise(trainer.backbone.spec.preprocessing), build_network(trainer.backbone, checkpoint)).eval()
    with torch.no_grad():
        given = network(torch.from_numpy(trainer.data.test.images[rows]))
    objective.require_equal(given, trainer.logits(trained, "test", rows))


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
    require_classes(data.kind, "Pretraining")
    check_data(data, preprocessing, "network")
    library, bare_name = split_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = create_network(library, bare_name, network_options or {}, len(data.labels), weights=False)
    check_forward(network, bare_name, preprocessing)
    module = nn.Sequential(Normalise(preprocessing), network).train()
    images, targets = torch.from_numpy(data.train.images), torch.from_numpy(data.train.targets)
    examples = Examples((images,), targets, torch.arange(len(targets)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        course = Course(options.lr or TUNING_LR, options.epochs)
        train(module, examples, options, course, Compute("cpu", channels_last=False), on_epoch)
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


def find_subset(backbone: Backbone, subset: Subset) -> tuple[str, ...]:
    """Return the paths meant by `subset`, each once, in forward order. Raises UnknownBlock."""
    if subset == "all":
        return backbone.blocks
    wanted = () if subset == "none" else (subset,) if isinstance(subset, str) else tuple(subset)
    return find_paths(backbone.network, wanted)


def _provenance(data: TaskData, method: Method, options: FitOptions, lr: float, replayed: bool) -> Provenance:
    return {
        "method": method.name,
        "data": data.name,
        "train_images": len(data.train),
        "test_images": len(data.test),
        "epochs": method.epochs,
        "lr": lr,
        "weight_decay": options.weight_decay,
        "batch_size": options.batch_size,
        "augmented_views": options.views,
        "features_computed_once": replayed,
        **({"lora_rank": method.rank} if method.rank else {}),
        **versions(),
    }
