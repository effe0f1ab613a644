"""Families of dense networks: decoders, detectors' raw heads and classifiers on one backbone, frozen and tuned at several depths."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.models.segmentation.lraspp import LRASPP

from benchmarks.studies.coverage.networks import randomise
from benchmarks.studies.coverage.sharing.family import FamilyTask, MakeFamily, TaskFamily, add_noise, own_weights
from benchmarks.studies.coverage.sharing.heads import (
    Classifier,
    DetrHeads,
    DptHead,
    OnMaps,
    PyramidSegmenter,
    RetinaHeads,
    ssd_heads,
)

_Maps = dict[str, Tensor]


@dataclass(frozen=True)
class _Backbone:
    """A backbone that gives feature maps. late, middle: modules that tasks tune. channels: of its maps."""

    make: Callable[[], nn.Module]
    late: str
    middle: str
    channels: tuple[int, ...]
    size: int


class _VitMaps(nn.Module):
    """A vision transformer's tokens after four of its blocks, as maps."""

    def __init__(self, size: int) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"img_size": size, "depth": 8, "embed_dim": 96, "num_heads": 3, "num_classes": 0}
        self.vit: Any = timm.create_model("vit_tiny_patch16_224", **sizes)

    def forward(self, image: Tensor) -> _Maps:
        maps = self.vit.forward_intermediates(image, indices=[1, 3, 5, 7], intermediates_only=True)
        return {str(place): level for place, level in enumerate(maps)}


def _levels(name: str, taps: Mapping[str, str], part: str = "", **options: Any) -> nn.Module:
    network = torchvision.models.get_model(name, weights=None, **options).get_submodule(part)
    maps: nn.Module = IntermediateLayerGetter(network, dict(taps))
    return maps


_RESNET = {f"layer{level}": str(level) for level in (1, 2, 3, 4)}
_DILATED: dict[str, Any] = {"replace_stride_with_dilation": [False, True, True]}
_BACKBONES = {
    "resnet18": _Backbone(partial(_levels, "resnet18", _RESNET), "layer4.1", "layer3.1", (64, 128, 256, 512), 64),
    "resnet50": _Backbone(partial(_levels, "resnet50", _RESNET), "layer4.2", "layer3.3", (256, 512, 1024, 2048), 64),
    "resnet50, dilated": _Backbone(
        partial(_levels, "resnet50", {"layer4": "out"}, **_DILATED), "layer4.2", "layer3.3", (2048,), 64
    ),
    "mobilenet_v3_large, dilated": _Backbone(
        partial(_levels, "mobilenet_v3_large", {"4": "low", "16": "high"}, "features", dilated=True), "15", "11", (40, 960), 64
    ),
    "mobilenet_v3_large": _Backbone(
        partial(_levels, "mobilenet_v3_large", {"12": "0", "16": "1"}, "features"), "15", "8", (112, 960), 96
    ),
    "efficientnet_b0": _Backbone(
        partial(_levels, "efficientnet_b0", {"3": "0", "5": "1", "8": "2"}, "features"), "7", "4.1", (40, 112, 1280), 96
    ),
    "vit, 8 blocks of 96": _Backbone(partial(_VitMaps, 64), "vit.blocks.7", "vit.blocks.4", (96, 96, 96, 96), 64),
}


class _As(nn.Module):
    """The last map of a backbone by the name that torchvision's segmenters ask for."""

    def __init__(self, maps: nn.Module) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, image: Tensor) -> _Maps:
        return OrderedDict(out=list(self.maps(image).values())[-1])


_Dense = Callable[[nn.Module, Sequence[int]], nn.Module]
_HEADS: dict[str, tuple[str, _Dense]] = {
    "lraspp": ("mobilenet_v3_large, dilated", lambda maps, channels: LRASPP(maps, *channels, num_classes=5)),
    "deeplabv3": ("resnet50, dilated", lambda maps, channels: DeepLabV3(_As(maps), DeepLabHead(channels[-1], 5))),
    "fcn": ("resnet50, dilated", lambda maps, channels: FCN(_As(maps), FCNHead(channels[-1], 5))),
    "fpn": ("resnet18", lambda maps, channels: OnMaps(maps, PyramidSegmenter(channels))),
    "retinanet": ("resnet50", lambda maps, channels: OnMaps(maps, RetinaHeads(channels))),
    "ssd": ("efficientnet_b0", lambda maps, channels: OnMaps(maps, ssd_heads(channels, lite=False))),
    "ssdlite": ("mobilenet_v3_large", lambda maps, channels: OnMaps(maps, ssd_heads(channels, lite=True))),
    "detr-like": ("resnet18", lambda maps, channels: OnMaps(maps, DetrHeads(channels[-1], places=4))),
    "dpt-like": ("vit, 8 blocks of 96", lambda maps, channels: OnMaps(maps, DptHead(channels[-1]))),
}
# segmentation-models-pytorch's decoders: the encoder that each takes, and the pixels that it needs.
_LIBRARY = {
    "smp-unet": ("Unet", "resnet18", 64),
    "smp-fpn": ("FPN", "resnet34", 64),
    "smp-pspnet": ("PSPNet", "resnet18", 64),
    "smp-linknet": ("Linknet", "mobilenet_v2", 64),
    "smp-deeplabv3plus": ("DeepLabV3Plus", "resnet18", 64),
    "smp-pan": ("PAN", "resnet18", 128),
}
_LIBRARY_TUNED = {"resnet": ("layer4.1", "layer3.1"), "mobilenet_v2": ("features.16", "features.10")}


def dense_families() -> dict[str, MakeFamily]:
    """Return what makes each family, by name."""
    own = {name: partial(_make, name, _BACKBONES[backbone], backbone, head) for name, (backbone, head) in _HEADS.items()}
    return {**own, **{name: partial(_make_of_library, name, *what) for name, what in _LIBRARY.items()}}


def _make(name: str, backbone: _Backbone, what: str, head: _Dense) -> TaskFamily:
    torch.manual_seed(0)
    maps = backbone.make()
    tuned = backbone.late, backbone.middle
    tasks = _tasks(maps, backbone.size, tuned, lambda own: head(own, backbone.channels), backbone.channels[-1])
    return TaskFamily(name, f"{what}, {backbone.size} px", tasks, _images(backbone.size))


def _make_of_library(name: str, decoder: str, encoder: str, size: int) -> TaskFamily:
    import segmentation_models_pytorch as library

    def build(own: nn.Module | None = None) -> Any:
        network = getattr(library, decoder)(encoder, encoder_weights=None, classes=5)
        network.encoder = own or network.encoder
        return network

    torch.manual_seed(0)
    maps = build().encoder
    tuned = next(paths for word, paths in _LIBRARY_TUNED.items() if encoder.startswith(word))
    return TaskFamily(name, f"{encoder}, {size} px", _tasks(maps, size, tuned, build, maps.out_channels[-1]), _images(size))


def _tasks(
    maps: nn.Module, size: int, tuned: tuple[str, str], build: Callable[[nn.Module], nn.Module], channels: int
) -> dict[str, FamilyTask]:
    """Return three dense tasks and two classifiers on `maps`, whose weights become random. tuned: its late and its middle block."""
    randomise(maps, size)
    late, middle = tuned
    own_blocks = {"dense-0": (), "dense-1": (late,), "dense-2": (middle,), "classes-0": (), "classes-1": (late,)}
    tasks = {}
    for seed, (task, paths) in enumerate(own_blocks.items()):
        own, kind = copy.deepcopy(maps), task.partition("-")[0]
        add_noise(own, paths, seed)
        network = build(own) if kind == "dense" else OnMaps(own, Classifier(channels))
        for name, module in network.named_children():
            if name not in ("backbone", "encoder"):
                own_weights(module, 100 + seed)
        tasks[task] = FamilyTask(network.eval().requires_grad_(False), kind, paths)
    return tasks


def _images(size: int) -> dict[str, Tensor]:
    return {"image": torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(1))}
