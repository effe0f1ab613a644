"""What happens to an image before the first segment, in one place for training and serving.

An image becomes a uint8 array (height, width, 3) here: decode, convert to RGB, resize, centre crop. What follows (scale to
[0, 1], normalise, layout) is arithmetic and is exported into the graph; `mean` and `std` are recorded for people to see. Of networks that
others exported it is not: `as_input` does it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# The order of axes in a batch of images, in Triton's words; "": of tensors that are no images, or nobody has said.
Layout = Literal["NHWC", "NCHW", ""]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

_FLOATS = {"FP16": np.float16, "FP32": np.float32}  # of inputs that images become
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose images of mode I hold 0 to 65,535
_BITS_TAG, _PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF


class UnknownRange(ValueError):
    """An image of 32-bit numbers: nothing says which of them is black and which is white."""

    def __init__(self) -> None:
        super().__init__(
            "hold 32-bit numbers, of which nothing says what is black and what is white; save them with 8 or 16 bits"
        )


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
        """Return `image` as a uint8 array of shape (height, width, 3), RGB. Raises UnknownRange."""
        image = to_rgb(image)
        resized = image.resize(self.resized_size(image.width, image.height), _RESAMPLING[self.interpolation])
        left, top = self.corner(resized.width, resized.height)
        return np.asarray(resized.crop((left, top, left + self.width, top + self.height)), dtype=np.uint8)

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) of a picture after the resize: the shorter side as timm computes it, the other in proportion."""
        frame_width, frame_height = int(self.width / self.crop_fraction), int(self.height / self.crop_fraction)
        if frame_width * height >= frame_height * width:  # the width is the tighter side
            return frame_width, max(self.height, int(frame_width * height / width))
        return max(self.width, int(frame_height * width / height)), frame_height

    def corner(self, width: int, height: int) -> tuple[int, int]:
        """Return (left, top): from where on the centre is cropped of a picture that is resized to that size."""
        return round((width - self.width) / 2), round((height - self.height) / 2)

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """Return in which order rows of `shape` hold the image, "" where they do not."""
        if shape == (self.height, self.width, 3):
            return "NHWC"
        return "NCHW" if shape == (3, self.height, self.width) else ""

    def as_input(self, images: NDArray[Any], dtype: str, layout: Layout) -> NDArray[Any]:
        """Return uint8 `images` of shape (n, height, width, 3) as a network takes them: of `dtype` in the v2 protocol's words.

        As floats they are normalised: by the network's own arithmetic where it takes UINT8. layout: "NCHW" turns them.
        """
        rows: NDArray[Any] = images
        if dtype != "UINT8":
            mean, std = (np.asarray(values, np.float32) for values in (self.mean, self.std))
            rows = ((images.astype(np.float32) / np.float32(255) - mean) / std).astype(_FLOATS[dtype])
        return np.ascontiguousarray(rows.transpose(0, 3, 1, 2)) if layout == "NCHW" else rows

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


def to_rgb(image: Image.Image) -> Image.Image:
    """Return `image` with 8 bits per channel, RGB; itself if it is that.

    Of 16 bits the upper eight are taken, as Pillow does with colours; of transparency nothing, as torchvision and timm do it.
    Raises UnknownRange for 32-bit integers and floats.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS):
        return Image.fromarray(_upper_eight_bits(image)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnknownRange
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, and Pillow does not warn of what it leaves out
    return image.convert("RGB")


def _upper_eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Return the upper eight of 16 bits, of 12 where a TIFF says so; in Pillow's 16-bit modes white may be zero, unlike in its others."""
    tags = getattr(image, "tag_v2", {})
    (bits, *_) = tags.get(_BITS_TAG, (16,))
    values: NDArray[np.uint8] = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return 255 - values if tags.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO else values


def resampling_of(interpolation: str) -> Interpolation:
    """Return `interpolation` checked. Raises ValueError naming the known filters."""
    if interpolation not in _RESAMPLING:
        raise ValueError(f"interpolation must be one of {', '.join(_RESAMPLING)}, not {interpolation!r}.")
    return cast(Interpolation, interpolation)
