"""What happens to an image before the first segment, in one place for training and serving.

An image becomes a uint8 array (height, width, 3) here: decode, convert to RGB, resize, centre crop. What follows (scale to
[0, 1], normalise, layout) is arithmetic and is exported into the graph; `mean` and `std` are recorded for people to see.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input.

    height, width: pixels of the network's input.
    mean, std: per RGB channel, in units of the [0, 1] range, as timm and torchvision give them.
    interpolation: the resize filter; antialiased, as PIL and torchvision's transforms on PIL images do.
    crop_fraction: the shorter side is resized to size / crop_fraction, then the centre is cropped (timm's `crop_pct`).
    """

    height: int
    width: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bicubic"
    crop_fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"height and width must be positive, not {self.height} and {self.width}.")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError("mean and std must have three values each, one per RGB channel.")
        if any(s <= 0 for s in self.std):
            raise ValueError(f"std must be positive, not {self.std}.")
        if self.interpolation not in _RESAMPLING:
            raise ValueError(f"interpolation must be one of {', '.join(_RESAMPLING)}, not {self.interpolation!r}.")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must be in (0, 1], not {self.crop_fraction}.")

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return `image` as a uint8 array of shape (height, width, 3), RGB."""
        image = image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
        resized = image.resize(self.resized_size(image.width, image.height), _RESAMPLING[self.interpolation])
        left = round((resized.width - self.width) / 2)
        top = round((resized.height - self.height) / 2)
        return np.asarray(resized.crop((left, top, left + self.width, top + self.height)), dtype=np.uint8)

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) of a picture after the resize: the shorter side as timm computes it, the other in proportion."""
        frame_width, frame_height = int(self.width / self.crop_fraction), int(self.height / self.crop_fraction)
        if frame_width * height >= frame_height * width:  # the width is the tighter side
            return frame_width, max(self.height, int(frame_width * height / width))
        return max(self.width, int(frame_height * width / height)), frame_height

    def differing(self, other: Preprocessing) -> frozenset[str]:
        """Return the names of the fields in which `other` is different."""
        mine, others = asdict(self), asdict(other)
        return frozenset(name for name, value in mine.items() if value != others[name])

    def words(self, fields: Collection[str]) -> str:
        """Return what it says in `fields`, for a sentence."""
        size = [f"{self.height}x{self.width} pixels"] if {"height", "width"} & set(fields) else []
        rest = {"interpolation": self.interpolation, "crop_fraction": f"{self.crop_fraction:g}"}
        rest |= {name: ",".join(f"{value:g}" for value in values) for name, values in (("mean", self.mean), ("std", self.std))}
        return " and ".join([*size, *(f"{name} {value}" for name, value in rest.items() if name in fields)])

    def to_json(self) -> str:
        """Return the canonical JSON form: equal preprocessing, equal string."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read what `to_json` wrote. Raises ValueError when a field is missing, unknown or out of range."""
        try:
            fields: dict[str, Any] = json.loads(text)
            fields["mean"], fields["std"] = tuple(fields["mean"]), tuple(fields["std"])
            return cls(**fields)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a preprocessing description: {error}") from error


def resampling_of(interpolation: str) -> Interpolation:
    """Return `interpolation` checked. Raises ValueError naming the known filters."""
    if interpolation not in _RESAMPLING:
        raise ValueError(f"interpolation must be one of {', '.join(_RESAMPLING)}, not {interpolation!r}.")
    return cast(Interpolation, interpolation)
