"""What somebody, or a file of transformers or timm, says of how images become the input of a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from contract.preprocessing import Interpolation, Preprocessing, resampling_of

Channels = tuple[float, float, float]
Spoken = str | Path | Preprocessing
IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_PILLOW: Mapping[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_TWICE = "EfficientNetImageProcessor"  # divides by the deviation once more, where it does not say include_top
_LARGE = 384  # from this size on ConvNeXt's pictures are not cropped
_PADDED = "the longer side is resized there, and the rest filled; here the shorter one is, and the centre is cropped"
_WHOLE = "pictures are not cropped there; here the centre is"
_UNSIZED = "pictures are not resized there; here the shorter side is"
_SQUEEZED = "both sides are resized there; here the shorter one is, and the centre is cropped"


@dataclass(frozen=True)
class Said:
    """What is said; None: nothing. size: height and width in pixels. mean, std: per RGB channel, of values in [0, 1].

    but: in what it is done otherwise than it is said, a clause; "": in nothing.
    """

    size: tuple[int, int] | None = None
    mean: Channels | None = None
    std: Channels | None = None
    interpolation: Interpolation = "bilinear"
    crop_fraction: float = 1.0
    but: str = ""


def read_said(spoken: Spoken) -> Said:
    """Return what `spoken` says: a Preprocessing; a file, as `said_in_file` reads it; or words, such as "imagenet,size=224,crop=0.875".

    Of the words, mean and std are one number for all channels, or three with a plus between them; size is one side, or HEIGHTxWIDTH.
    Raises ValueError with a clause that says what is wrong.
    """
    if isinstance(spoken, Preprocessing):
        return Said((spoken.height, spoken.width), spoken.mean, spoken.std, spoken.interpolation, spoken.crop_fraction)
    if isinstance(spoken, Path) or spoken.endswith(".json"):
        return said_in_file(Path(spoken))
    said = Said()
    for part in filter(None, spoken.split(",")):
        said = _with_word(said, *part.partition("="))
    return said


def _with_word(said: Said, name: str, sign: str, value: str) -> Said:
    if name == "imagenet" and not sign:
        return replace(said, mean=IMAGENET[0], std=IMAGENET[1])
    if name == "size":
        return replace(said, size=_size(value))
    if name == "mean":
        return replace(said, mean=_channels(value))
    if name == "std":
        return replace(said, std=_channels(value))
    if name == "interpolation":
        return replace(said, interpolation=resampling_of(value))
    if name == "crop":
        return replace(said, crop_fraction=_number(value))
    raise ValueError(f"{name + sign + value!r} is none of imagenet, size=, mean=, std=, interpolation=, crop=, or a file .json")


def said_in_file(file: Path) -> Said:
    """Return what a preprocessor_config.json of transformers, a config.json of timm, or a Preprocessing as JSON says. Raises ValueError."""
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ValueError(f"{file.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{file.name} is no JSON") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} is no JSON object")
    try:
        return said_in(content)
    except (TypeError, KeyError, AttributeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{file.name} does not say it in a way that is known") from error


def said_in(content: Mapping[str, Any]) -> Said:
    """Return what an object of one of the three forms says. Raises ValueError, and whatever an unknown form leads to."""
    if {field.name for field in fields(Preprocessing)} == content.keys():
        return read_said(Preprocessing.from_json(json.dumps(content)))
    if isinstance(content.get("pretrained_cfg"), dict):
        return _of_timm(content["pretrained_cfg"])
    if "image_mean" in content or "do_normalize" in content:
        return _of_transformers(content)
    raise ValueError("it says nothing of images")


def _of_timm(config: Mapping[str, Any]) -> Said:
    _, height, width = config["input_size"]
    but = {"center": "", "border": _PADDED}.get(config.get("crop_mode") or "center", _SQUEEZED)
    how = resampling_of(config.get("interpolation") or "bicubic")  # what timm takes where nothing is said
    crop = float(config.get("crop_pct") or 0.875)
    return Said((height, width), _three(config["mean"]), _three(config["std"]), how, crop, but)


def _of_transformers(config: Mapping[str, Any]) -> Said:
    if config.get("do_flip_channel_order"):
        raise ValueError("it turns RGB into BGR, which is not done here")
    said = _sized(config)
    scale = 255 * (float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0)
    shift = 1.0 if config.get("rescale_offset") else 0.0
    normalised = config.get("do_normalize", True)
    mean, std = (
        _three(config[name]) if normalised else _three(value) for name, value in (("image_mean", 0.0), ("image_std", 1.0))
    )
    if config.get("include_top", config.get("image_processor_type") == _TWICE):
        std = _three([one * more for one, more in zip(std, _three(config["image_std"]), strict=True)])
    resample = config.get("resample", 2)
    if resample not in _PILLOW:
        raise ValueError(f"its filter {resample!r} is not one of Pillow's {', '.join(map(str, _PILLOW))}")
    # ((v * scale - shift) - mean) / std, v being from 0 to 1
    red, green, blue = ((value + shift) / scale for value in mean)
    first, second, third = (value / scale for value in std)
    return replace(said, mean=(red, green, blue), std=(first, second, third), interpolation=_PILLOW[resample])


def _sized(config: Mapping[str, Any]) -> Said:
    """Return the size and the crop that transformers' configuration says."""
    size, crop = config.get("size"), config.get("crop_size") if config.get("do_center_crop") else None
    height, width, squeezed = _sides(size) if size is not None else (0, 0, False)
    if crop is not None:
        high, wide, _ = _sides(crop)
        but = _SQUEEZED if squeezed and isinstance(size, dict) else ""  # one number is the shorter side, where there is a crop
        but = but if config.get("do_resize", True) else _UNSIZED
        return Said((high, wide), crop_fraction=high / height if height else 1.0, but=but)
    if not size:
        return Said()
    if "crop_pct" not in config and not squeezed:
        return Said((height, width), but=_WHOLE)
    cropped = float(config.get("crop_pct") or 1.0) if height < _LARGE else 1.0
    return Said((height, width), crop_fraction=cropped, but=_SQUEEZED if squeezed or height >= _LARGE else "")


def _sides(size: Any) -> tuple[int, int, bool]:
    """Return height, width, and whether a picture gets these whatever its own are."""
    if isinstance(size, dict) and "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"]), False
    if isinstance(size, dict):
        return int(size["height"]), int(size["width"]), True
    return int(size), int(size), True


def _three(values: Any) -> Channels:
    if isinstance(values, int | float):
        return float(values), float(values), float(values)
    red, green, blue = map(float, values)
    return red, green, blue


def _channels(text: str) -> Channels:
    parts = text.split("+")
    numbers = [_number(part) for part in parts]
    if len(numbers) not in (1, 3):
        raise ValueError(f"{text!r} is not one number, or three with a plus between them")
    return _three(numbers if len(numbers) == 3 else numbers[0])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no number") from error


def _size(text: str) -> tuple[int, int]:
    sides: Sequence[str] = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ValueError(f"{text!r} is no size such as 224 or 384x512")
    return int(sides[0]), int(sides[-1])
