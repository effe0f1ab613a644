"""Tiny real networks and data, shared by the tests of all packages that train or export. Needs torch."""

from __future__ import annotations

import numpy as np
import timm
import torch
from torch import nn

from contract.preprocessing import Preprocessing
from tuning.data.labelled import Split, TaskData
from tuning.network.backbone import Backbone, BackboneSpec
from tuning.network.weights import hash_weights

TINY_RESNET_OPTIONS = {"channels": [8, 8, 16, 16]}
# In the order of files, so that a network from a file is equal in everything to one that was made here.
TINY_VIT_OPTIONS = {"depth": 3, "embed_dim": 32, "img_size": 32, "num_heads": 2, "patch_size": 8}


def tiny_preprocessing(size: int = 32) -> Preprocessing:
    return Preprocessing(height=size, width=size, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3), interpolation="bilinear")


def tiny_resnet(seed: int = 0, classes: int = 5) -> Backbone:
    """A ResNet-18 of 8 blocks with 8 to 16 channels; its BatchNorm statistics are not the initial ones."""
    return _backbone("resnet18", TINY_RESNET_OPTIONS, seed, classes)


def tiny_vit(seed: int = 0, classes: int = 5) -> Backbone:
    """A ViT of 3 blocks, embedding 32."""
    return _backbone("vit_tiny_patch16_224", TINY_VIT_OPTIONS, seed, classes)


def tiny_data(classes: int = 3, train: int = 24, test: int = 12, size: int = 32, seed: int = 0) -> TaskData:
    """Noise whose brightness tells the class: learnable within a few steps."""
    rng = np.random.default_rng(seed)
    labels = tuple(f"class{index}" for index in range(classes))
    return TaskData("tiny", labels, _split(rng, classes, train, size), _split(rng, classes, test, size))


def _split(rng: np.random.Generator, classes: int, count: int, size: int) -> Split:
    targets = (np.arange(count) % classes).astype(np.int64)
    noise = rng.integers(0, 80, (count, size, size, 3))
    return Split((noise + 170 * targets.reshape(-1, 1, 1, 1) // max(classes - 1, 1)).astype(np.uint8), targets)


def _backbone(name: str, options: dict[str, object], seed: int, classes: int) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(name, num_classes=classes, **options)
        _stir_statistics(network)
    spec = BackboneSpec("timm", name, classes, tiny_preprocessing(), f"random, seed {seed}", hash_weights(network), options)
    return Backbone(spec, network.eval().requires_grad_(False))


def _stir_statistics(network: nn.Module) -> None:
    """Give norms other statistics and weights than 0 and 1, as trained networks have."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
