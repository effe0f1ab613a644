"""How an image becomes the input of a network, as its ONNX file says: in its metadata, in files beside it, or where its graph begins."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from contract.preprocessing import Preprocessing
from exporter.sources.images.said import Channels, Said, said_in, said_in_file

_BESIDE = ("preprocessor_config.json", "config.json")
_OWN = "preprocessing"  # in a file's metadata: a Preprocessing as JSON
_FORMAT, _RANGE = "Image.BitmapPixelFormat", "Image.NominalPixelRange"  # ONNX's own words
_RANGES = {"NominalRange_0_255": (0.0, 1 / 255), "Normalized_0_1": (0.0, 1.0), "Normalized_1_1": (0.5, 0.5)}
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_MOVES = ("Cast", "Transpose", "Identity")
_LIKELY = (0.5, 30.0)  # by what images are multiplied that are from 0 to 1
_Numbers = NDArray[np.float64]


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
    if _in_graph(model, taken) is not None and not _is_plain(said):
        remarks.append("normalises images itself, and gets them normalised, as was said")
    return taken.fitted(said), " It ".join(f"{remark}." for remark in remarks)


def find_preprocessing(model: ir.Model, file: Path) -> tuple[Preprocessing | None, str]:
    """Return how an image becomes the input of `model`, which lies in `file`, and where that was found, to be read after its name.

    None where nothing says it, or not in a way that can be followed, which is then said; "" where there is nothing to say.
    """
    taken = image_input(model)
    if taken is None:
        return None, ""
    own = _in_graph(model, taken)
    for where, said in _sayings(model, file):
        if isinstance(said, str):
            return None, f"takes arrays alone: {where} says how an image becomes its input, but {said}."
        if own is not None and not _is_plain(said):
            return None, f"takes arrays alone: it normalises images itself, and {where} would have that done a second time."
        try:
            how = taken.fitted(said)
        except ValueError as error:
            return None, f"takes arrays alone: {where} says how an image becomes its input, but {_clause(error)}."
        return how, f"takes images as {where} says{f' ({said.but})' if said.but else ''}."
    if own is None:
        return None, ""
    try:
        how = taken.fitted(own)
    except ValueError as error:
        return None, f"takes arrays alone: it normalises images itself, but {_clause(error)}."
    ends = "" if taken.dtype not in _FLOATS else " from 0 to 1" if own.std == (1.0, 1.0, 1.0) else " from 0 to 255"
    return how, (
        f"normalises images{ends} itself. Nothing says how they are resized: it is taken that the shorter side is, {how.interpolation}, to "
        f"{how.height} x {how.width} pixels, and the centre cropped."
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
    if found.get(_FORMAT, "Rgb8") != "Rgb8":
        raise ValueError(f"of the pixel format {found[_FORMAT]}, and images are Rgb8 here")
    if found[_RANGE] not in _RANGES:
        raise ValueError(f"of the range {found[_RANGE]}, which is none of {', '.join(_RANGES)}")
    mean, std = _RANGES[found[_RANGE]]
    return Said(mean=(mean, mean, mean), std=(std, std, std))


def _of_ultralytics(found: Mapping[str, str]) -> Said:
    sides = json.loads(found["imgsz"])
    squeezed = "pictures are padded to a square there; here the shorter side is resized, and the centre cropped"
    return Said((int(sides[0]), int(sides[-1])), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), but=squeezed)


def _is_plain(said: Said) -> bool:
    """Tell whether nothing is normalised: values are only brought to a range."""
    return said.mean == (0.0, 0.0, 0.0) and said.std is not None and len({*said.std}) == 1


def _in_graph(model: ir.Model, taken: ImageInput) -> Said | None:
    """Return what is left to do where the graph begins with a factor and a difference for each channel; None where it does not."""
    value = next(value for value in model.graph.inputs if value.name not in model.graph.initializers)
    factor, shift = _affine(model, value)
    if np.allclose(factor, 1) or np.allclose(shift, 0):
        return None  # a normalisation has both
    for most in (1.0, 255.0):
        spread = factor * most
        if not ((spread >= _LIKELY[0]) & (spread <= _LIKELY[1])).all():
            continue
        if taken.dtype in _FLOATS:
            return Said(mean=(0.0, 0.0, 0.0), std=(1 / most, 1 / most, 1 / most))
        if most == 255.0:
            return Said(mean=_three(-shift / spread), std=_three(1 / spread))
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
