"""Dense heads, and a classifier, on the feature maps of one backbone: small, but wired as the networks that they are called after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSDHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7


class OnMaps(nn.Module):
    """A head on all feature maps of a backbone, from the largest to the smallest."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Return what the head makes of the maps of `image`."""
        maps = self.backbone(image)
        answer: Tensor | dict[str, Tensor] = self.head(list(maps.values() if isinstance(maps, Mapping) else maps))
        return answer


class Classifier(nn.Module):
    """The mean of the last feature map, and a linear layer."""

    def __init__(self, channels: int, classes: int = 7) -> None:
        super().__init__()
        self.last = nn.Linear(channels, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (batch, classes)."""
        logits: Tensor = self.last(maps[-1].mean((-2, -1)))
        return logits


class PyramidSegmenter(nn.Module):
    """torchvision's feature pyramid, its levels enlarged and added up (Kirillov et al.: Panoptic Feature Pyramid Networks, 2019)."""

    def __init__(self, channels: Sequence[int], classes: int = 5, width: int = 32) -> None:
        super().__init__()
        self.pyramid, self.last = FeaturePyramidNetwork(list(channels), width), nn.Conv2d(width, classes, 3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (batch, classes, height, width), as large as the largest map."""
        first, *others = self.pyramid(_named(maps)).values()
        for level in others:
            first = first + functional.interpolate(level, size=first.shape[-2:], mode="bilinear")
        logits: Tensor = self.last(first)
        return logits


class RetinaHeads(nn.Module):
    """torchvision's RetinaNet up to its raw answers for all anchors, before any threshold."""

    def __init__(self, channels: Sequence[int], classes: int = 4, width: int = 32) -> None:
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(list(channels), width, extra_blocks=LastLevelP6P7(width, width))
        self.boxes = RetinaNetHead(width, 3, classes, norm_layer=partial(nn.GroupNorm, 8))

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return scores and boxes of all anchors."""
        found: dict[str, Tensor] = self.boxes(list(self.pyramid(_named(maps)).values()))
        return found


def ssd_heads(channels: Sequence[int], *, lite: bool, classes: int = 4) -> nn.Module:
    """Return torchvision's SSD, or SSDLite with depthwise convolutions, up to its raw answers for all anchors."""
    wide, anchors = list(channels), [4] * len(channels)
    heads: nn.Module = SSDLiteHead(wide, anchors, classes, nn.BatchNorm2d) if lite else SSDHead(wide, anchors, classes)
    return heads


class DetrHeads(nn.Module):
    """A transformer over the last feature map, with queries that answer a class and a box each (Carion et al., 2020)."""

    def __init__(self, channels: int, places: int, classes: int = 4, width: int = 32, queries: int = 10) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, width, 1)
        self.places, self.queries = nn.Parameter(torch.zeros(places, width)), nn.Parameter(torch.zeros(queries, width))
        self.transformer = nn.Transformer(width, 2, 1, 1, 64, dropout=0.0, batch_first=True)
        self.classes, self.boxes = nn.Linear(width, classes), nn.Linear(width, 4)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return scores and boxes of all queries."""
        tokens = self.project(maps[-1]).flatten(2).transpose(1, 2) + self.places
        found = self.transformer(tokens, self.queries.expand(tokens.shape[0], -1, -1))
        return {"pred_logits": self.classes(found), "pred_boxes": self.boxes(found).sigmoid()}


class DptHead(nn.Module):
    """Tokens of four depths of a vision transformer as maps of four sizes, fused from the smallest on (Ranftl et al., 2021)."""

    def __init__(self, channels: int, classes: int = 3, width: int = 16) -> None:
        super().__init__()
        larger = [nn.ConvTranspose2d(width, width, 4, 4), nn.ConvTranspose2d(width, width, 2, 2)]
        self.project = nn.ModuleList([nn.Conv2d(channels, width, 1) for _ in range(4)])
        self.resize = nn.ModuleList([*larger, nn.Identity(), nn.Conv2d(width, width, 3, 2, 1)])
        self.fuse = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(4)])
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (batch, classes, height, width), four times as large as the maps."""
        fused = torch.relu(self.fuse[3](self._level(maps, 3)))
        for place in (2, 1, 0):
            level = self._level(maps, place)
            level = level + functional.interpolate(fused, size=level.shape[-2:], mode="bilinear")
            fused = torch.relu(self.fuse[place](level))
        depth: Tensor = self.last(fused)
        return depth

    def _level(self, maps: Sequence[Tensor], place: int) -> Tensor:
        level: Tensor = self.resize[place](self.project[place](maps[place]))
        return level


def _named(maps: Sequence[Tensor]) -> dict[str, Tensor]:
    return {str(place): level for place, level in enumerate(maps)}
