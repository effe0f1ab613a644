"""How an image becomes the input of a network, as its ONNX file says: in its metadata, in files beside it, or where its graph begins."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from contract.preprocessing import Preprocessing
from exporter.sources.images.said import IMAGENET, Channels, Said, said_in, said_in_file

_BESIDE = ("preprocessor_config.json", "config.json")
_OWN = "preprocessing"  # in a file's metadata: a Preprocessing as JSON
_FORMAT, _RANGE = "Image.BitmapPixelFormat", "Image.NominalPixelRange"  # ONNX's own words
_RANGES = {"NominalRange_0_255": (0.0, 1 / 255), "Normalized_0_1": (0.0, 1.0), "Normalized_1_1": (0.5, 0.5)}
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_MOVES = ("Cast", "Transpose", "Identity")
_LIKELY = (0.5, 30.0)  # by what images are multiplied that are from 0 to 1
_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class _Normalisation:
    """What a network does first: of values from 0 to `most`. mean, std: per channel, of values in [0, 1]."""

    most: float
    mean: Channels
    std: Channels

    @property
    def is_bgr(self) -> bool:
        """Whether the means are those of ImageNet the other way round."""
        return np.allclose(self.mean, IMAGENET[0][::-1], atol=0.005)

    @property
    def left(self) -> Said:
        """Return what is left to do for it: values are brought to its range."""
        return Said(mean=(0.0, 0.0, 0.0), std=(1 / self.most, 1 / self.most, 1 / self.most))


@dataclass(frozen=True)
class ImageInput:
    """The only input of a network, which could be an image. height, width: None where they are free."""

    dtype: ir.DataType
    height: int | None
    width: int | None

    def fitted(self, said: Said) -> Preprocessing:
        """Return what is `said` for this input. Raises ValueError with a clause about the network, or what was said."""
        if self.dtype in _FLOATS and (said.mean is None or said.std is None):
            raise ValueError("it takes floats, and mean and std are not said")
        height, width = said.size or (None, None)
        high, wide = self.height or height, self.width or width
        if high is None or wide is None:
            raise ValueError("it takes images of any size, and no size is said")
        if said.size is not None and (high, wide) != said.size:
            raise ValueError(f"it takes images of {high} x {wide} pixels (height x width), not of {height} x {width}")
        mean, std = said.mean or (0.0, 0.0, 0.0), said.std or (1.0, 1.0, 1.0)
        return Preprocessing(high, wide, mean, std, said.interpolation, said.crop_fraction)


def image_input(model: ir.Model) -> ImageInput | None:
    """Return the only input of `model` if an image could be put there: uint8 with the channels last, or floats; None: it could not."""
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    if len(inputs) != 1 or inputs[0].shape is None or inputs[0].dtype not in (*_FLOATS, ir.DataType.UINT8):
        return None
    sizes = [size if isinstance(size, int) else None for size in inputs[0].shape]
    if len(sizes) != 4 or (sizes[3] != 3 and (sizes[1] != 3 or inputs[0].dtype == ir.DataType.UINT8)):
        return None
    high, wide = sizes[1:3] if sizes[3] == 3 else sizes[2:]
    return ImageInput(inputs[0].dtype, high, wide)


def stated(model: ir.Model, said: Said) -> tuple[Preprocessing, str]:
    """Return what somebody `said` of how an image becomes the input of `model`, and what to know of that, to be read after its name.

    Raises ValueError with a clause about the network.
    """
    taken = image_input(model)
    if taken is None:
        raise ValueError(
            "its network takes no image: that is one input of uint8 with the channels last, or of floats, with 3 channels"
        )
    remarks = [f"takes images as was said ({said.but})"] if said.but else []
    own = _in_graph(model, taken)
    if own is not None and taken.dtype in _FLOATS and not _is_plain(said):
        remarks.append("normalises images itself, and gets them normalised, as was said")
    if order := _other_order(model, own):
        remarks.append(f"gets RGB, though {order}")
    return taken.fitted(said), " It ".join(f"{remark}." for remark in remarks)


def find_preprocessing(model: ir.Model, file: Path) -> tuple[Preprocessing | None, str]:
    """Return how an image becomes the input of `model`, which lies in `file`, and where that was found, to be read after its name.

    None where nothing says it, or not in a way that can be followed, which is then said; "" where there is nothing to say.
    """
    taken = image_input(model)
    if taken is None:
        return None, ""
    own = _in_graph(model, taken)
    if order := _other_order(model, own):
        return None, f"takes arrays alone: {order}, and images are RGB here."
    for where, said in _sayings(model, file):
        try:
            followed = _followed(said, own, taken)
            how = taken.fitted(followed)
        except ValueError as error:
            return None, f"takes arrays alone: {where} says how an image becomes its input, but {_clause(error)}."
        return how, f"takes images as {where} says{f' ({followed.but})' if followed.but else ''}."
    return (None, "") if own is None else _assumed(taken, own)


def _followed(said: Said | str, own: _Normalisation | None, taken: ImageInput) -> Said:
    """Return what a file says, as it can be followed. Raises ValueError with a clause: not at all, or the network does it otherwise."""
    if isinstance(said, str):
        raise ValueError(said)
    if own is None:
        more = "" if taken.dtype in _FLOATS or _is_plain(said) else "it takes bytes, so that it has to normalise them itself"
        return replace(said, but="; ".join(filter(None, (said.but, more))))
    if taken.dtype in _FLOATS:
        if not _is_plain(said):
            raise ValueError("it normalises images itself, so that it would be done a second time")
        if said.std is not None and not np.allclose(said.std, 1 / own.most, rtol=0.05):
            raise ValueError(f"it begins with what values from 0 to {own.most:g} need, not those to {1 / said.std[0]:g}")
        return said
    if not (_is_plain(said) or np.allclose((said.mean or own.mean, said.std or own.std), (own.mean, own.std), rtol=0.02)):
        raise ValueError(f"it normalises images itself, with mean {_words(own.mean)} and std {_words(own.std)}")
    return replace(said, mean=own.mean, std=own.std)


def _other_order(model: ir.Model, own: _Normalisation | None) -> str:
    """Return what tells that channels are to come otherwise than as RGB, a clause; "" where nothing does."""
    if (order := model.metadata_props.get(_FORMAT, "Rgb8")) != "Rgb8":
        return f"its metadata say that images are of the pixel format {order}"
    return "it normalises images with the means of ImageNet in the order BGR" if own is not None and own.is_bgr else ""


def _words(channels: Channels) -> str:
    return ", ".join(f"{value:.3g}" for value in channels)


def _assumed(taken: ImageInput, own: _Normalisation) -> tuple[Preprocessing | None, str]:
    """Return how an image becomes the input of a network that normalises itself, of which nothing else is said, and what is assumed."""
    try:
        how = taken.fitted(Said(mean=own.mean, std=own.std) if taken.dtype not in _FLOATS else own.left)
    except ValueError as error:
        return None, f"takes arrays alone: it normalises images itself, but {_clause(error)}."
    ends = "" if taken.dtype not in _FLOATS else f" from 0 to {own.most:g}"
    return how, (
        f"normalises images{ends} itself. Nothing says how they are resized, or in which order channels come: it is taken that the shorter "
        f"side is, {how.interpolation}, to {how.height} x {how.width} pixels, and the centre cropped, in RGB."
    )


def _sayings(model: ir.Model, file: Path) -> Iterator[tuple[str, Said | str]]:
    """Yield what says something, by where, the best first; a clause where it cannot be followed."""
    found = model.metadata_props
    if _OWN in found:
        yield "its metadata", _tried(lambda: said_in(json.loads(found[_OWN])))
    if _RANGE in found:
        yield "its metadata", _tried(lambda: _of_onnx(found))
    if found.get("author") == "Ultralytics":
        yield "its metadata (Ultralytics)", _tried(lambda: _of_ultralytics(found))
    for name in _BESIDE:
        beside = file.parent / name
        if beside.is_file() and (name != _BESIDE[1] or "pretrained_cfg" in beside.read_text(errors="replace")):
            yield f"{name} beside it", _tried(partial(said_in_file, beside))


def _tried(read: Callable[[], Said]) -> Said | str:
    """Return what `read` returns, or a clause that says why it does not."""
    try:
        return read()
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        return _clause(error) if type(error) is ValueError else "not in a way that is known"


def _clause(error: ValueError) -> str:
    return str(error).rstrip(".")


def _of_onnx(found: Mapping[str, str]) -> Said:
    if found[_RANGE] not in _RANGES:
        raise ValueError(f"of the range {found[_RANGE]}, which is none of {', '.join(_RANGES)}")
    mean, std = _RANGES[found[_RANGE]]
    but = "" if _FORMAT in found else "channels are taken to be in the order RGB"
    return Said(mean=(mean, mean, mean), std=(std, std, std), but=but)


def _of_ultralytics(found: Mapping[str, str]) -> Said:
    sides = json.loads(found["imgsz"])
    padded = "pictures are padded to a square there; here the shorter side is resized, and the centre cropped"
    squeezed = "" if found.get("task") == "classify" else padded
    return Said((int(sides[0]), int(sides[-1])), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), but=squeezed)


def _is_plain(said: Said) -> bool:
    """Tell whether nothing is normalised: values are only brought to a range."""
    return said.mean == (0.0, 0.0, 0.0) and said.std is not None and len({*said.std}) == 1


def _in_graph(model: ir.Model, taken: ImageInput) -> _Normalisation | None:
    """Return what the graph begins with, if that is a factor and a difference for each channel; None where it is not."""
    value = next(value for value in model.graph.inputs if value.name not in model.graph.initializers)
    factor, shift = _affine(model, value)
    if np.allclose(factor, 1) or np.allclose(shift, 0):
        return None  # a normalisation has both
    for most in (1.0, 255.0) if taken.dtype in _FLOATS else (255.0,):
        spread = factor * most
        if ((spread >= _LIKELY[0]) & (spread <= _LIKELY[1])).all():
            return _Normalisation(most, _three(-shift / spread), _three(1 / spread))
    return None


def _affine(model: ir.Model, value: ir.Value) -> tuple[_Numbers, _Numbers]:
    """Return by what each channel of `value` is multiplied at first, and what is added then."""
    factor, shift = np.ones(3), np.zeros(3)
    while len(uses := value.uses()) == 1 and not value.is_graph_output():
        (node, place) = next(iter(uses))
        if node.op_type in _MOVES and place == 0:
            value = node.outputs[0]
            continue
        other = node.inputs[1 - place] if node.op_type in ("Add", "Sub", "Mul", "Div") and len(node.inputs) == 2 else None
        tensor = None if other is None else ir.convenience.get_const_tensor(other)
        is_turned = place == 1 and node.op_type in ("Sub", "Div")  # a constant less, or over, the image
        numbers = None if tensor is None or is_turned else tensor.numpy().astype(np.float64).reshape(-1)
        if numbers is None or numbers.size not in (1, 3):
            break
        if node.op_type in ("Mul", "Div"):
            by = numbers if node.op_type == "Mul" else 1 / numbers
            factor, shift = factor * by, shift * by
        else:
            shift = shift + (numbers if node.op_type == "Add" else -numbers)
        value = node.outputs[0]
    return factor, shift


def _three(values: _Numbers) -> Channels:
    red, green, blue = (float(f"{value:.6g}") for value in values)
    return red, green, blue
