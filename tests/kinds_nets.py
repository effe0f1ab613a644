"""Tiny torch networks that find coloured rectangles: what they answer is known from the picture. Images come in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = 32


class Coloured(nn.Module):
    """(n, 3, 32, 32) -> how red, green and blue each pixel is beside the others, the same trunk for all of the networks."""

    def __init__(self) -> None:
        super().__init__()
        self.beside = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.beside.weight.copy_(torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]])[:, :, None, None])
            self.beside.bias.fill_(0.0)

    def forward(self, image: Tensor) -> Tensor:
        return torch.relu(self.beside(image))


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = Coloured()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def coloured(self, image: Tensor) -> Tensor:
        return self.trunk(image) * self.scale


class Segments(_Net):
    """-> (n, 4, 32, 32): nothing, red, green, blue."""

    def forward(self, image: Tensor) -> Tensor:
        found = self.coloured(image)
        return torch.cat([torch.full_like(found[:, :1], 5.0), found], 1)


class OneThing(_Net):
    """-> (n, 1, 16, 16): above 0 where it is red."""

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(self.coloured(image)[:, :1], 2) - 5.0


class Sure(OneThing):
    """-> (n, 1, 32, 32): how sure it is that it is red, from 0 to 1, made larger behind the sigmoid."""

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.interpolate(torch.sigmoid(super().forward(image)), scale_factor=2, mode="bilinear")


class Means(_Net):
    """-> (n, 3): the mean of each colour."""

    def forward(self, image: Tensor) -> Tensor:
        return self.coloured(image).mean((2, 3))


class Marks(_Net):
    """-> (n, 3): a logit for each colour, above 0 where there is any."""

    def forward(self, image: Tensor) -> Tensor:
        return self.coloured(image).amax((2, 3)) - 5.0


class Shares(Marks):
    """-> (n, 3): the softmax of what `Marks` gives."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.softmax(super().forward(image), 1)


class OneMark(Marks):
    """-> (n, 1): a logit for green."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image)[:, 1:2]


def _boxes(found: Tensor) -> tuple[Tensor, Tensor]:
    """Return centre and size (n, 3, 4) of the rectangle of each colour, and how sure it is there (n, 3)."""
    places = torch.arange(SIZE, dtype=torch.float32) + 0.5
    mass = (found > 5.0).float()
    total = mass.sum((2, 3)).clamp(min=1e-6)

    def along(weights: Tensor) -> tuple[Tensor, Tensor]:
        mean = (weights * places).sum(2) / total
        spread = (weights * (places - mean[:, :, None]) ** 2).sum(2) / total
        return mean, torch.sqrt(12 * spread + 1)  # of pixels, each 1 wide

    (x, width), (y, height) = along(mass.sum(2)), along(mass.sum(3))
    return torch.stack([x, y, width, height], 2), (total > 1).float() * 0.9 + 0.05


class Yolo(_Net):
    """-> (n, 4 + 3, 9): each rectangle three times, the second and third time a little aside and less sure."""

    def forward(self, image: Tensor) -> Tensor:
        boxes, sure = _boxes(self.coloured(image))
        classes = torch.diag_embed(sure)
        once = torch.cat([boxes, classes], 2)
        again = torch.cat([boxes + 0.5, classes * 0.9], 2)
        return torch.cat([again, once, again], 1).transpose(1, 2)


class YoloLogits(Yolo):
    """The same, with logits for scores."""

    def forward(self, image: Tensor) -> Tensor:
        boxes, scores = super().forward(image).split([4, 3], 1)
        return torch.cat([boxes, torch.logit(scores, 0.01)], 1)


class Detr(_Net):
    """-> logits (n, 3, 3 + 1) and boxes (n, 3, 4) as fractions of the image."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        boxes, sure = _boxes(self.coloured(image))
        there = torch.diag_embed((sure - 0.5) * 20)
        nothing = (0.5 - sure)[:, :, None] * 20
        return {"logits": torch.cat([there, nothing], 2), "pred_boxes": boxes / SIZE}


class SoftDetr(Detr):
    """The same behind a softmax."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        found = super().forward(image)
        return found | {"logits": torch.softmax(found["logits"], 2)}


class RtDetr(Detr):
    """The same, with a logit for each class and none of nothing."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        found = super().forward(image)
        return found | {"logits": found["logits"][:, :, :3] - 2.0}


class SureRtDetr(RtDetr):
    """The same behind a sigmoid."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        found = super().forward(image)
        return found | {"logits": torch.sigmoid(found["logits"])}


class SureYolo(Yolo):
    """As `Yolo`, with scores from a sigmoid."""

    def forward(self, image: Tensor) -> Tensor:
        boxes, scores = super().forward(image).split([4, 3], 1)
        return torch.cat([boxes, torch.sigmoid(20 * scores - 10)], 1)


class Torchvision(_Net):
    """-> corners (n, 3, 4), scores (n, 3) and numbers of classes (n, 3), as torchvision's detectors have them."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        boxes, sure = _boxes(self.coloured(image))
        half = boxes[:, :, 2:] / 2
        numbers = torch.arange(1, 4).expand(sure.shape[0], 3) + 0 * sure.long()
        return {"boxes": torch.cat([boxes[:, :, :2] - half, boxes[:, :, :2] + half], 2), "scores": sure, "labels": numbers}


class Feature(Means):
    """-> (n, 4): what `Head` sees."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 4, 3, padding=1)
        with torch.no_grad():
            self.mix.weight.copy_(torch.arange(108).reshape(4, 3, 3, 3) / 108)
            self.mix.bias.fill_(0.1)

    def forward(self, image: Tensor) -> Tensor:
        return torch.relu(self.mix(self.coloured(image))).mean((2, 3))


class Head(Feature):
    """-> (n, classes): a layer on the feature."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(classes)
        self.head = nn.Linear(4, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(super().forward(image))


def head_one() -> Head:
    """Return a network of three classes."""
    return Head(3)


def head_two() -> Head:
    """Return a network of five classes."""
    return Head(5)


segments, one_thing, means, marks, yolo, detr, torchvision = Segments, OneThing, Means, Marks, Yolo, Detr, Torchvision
sure, shares, one_mark, yolo_logits, sure_yolo = Sure, Shares, OneMark, YoloLogits, SureYolo
soft_detr, rtdetr, sure_rtdetr = SoftDetr, RtDetr, SureRtDetr
feature = Feature
