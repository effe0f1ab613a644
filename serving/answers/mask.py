"""A class for each pixel of the picture that was sent."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from contract.dtypes import Array
from contract.kinds.mask import UNKNOWN, Mask
from contract.repository.model import Task
from serving.answers.answer import About, TaskAnswer, label_of
from serving.answers.geometry import Frame, frame_of


class Area(BaseModel):
    """What of the picture has a class."""

    label: str
    index: int = Field(description="The value of its pixels in the mask.")
    pixels: int
    share: float = Field(description="Of the pixels that the network has seen, from 0 to 1.")


class MaskAnswer(TaskAnswer):
    """A class for each pixel."""

    kind: Literal["mask"] = "mask"
    width: int
    height: int
    png: str = Field(
        description=f"Base64 of a PNG as large as the picture, 8 bits a pixel: the number of its class, {UNKNOWN} where the crop of the "
        "preprocessing has cut it off."
    )
    areas: list[Area] = Field(description="Of the classes that are there, largest first.")
    unknown_pixels: int = Field(description="That the network has not seen.")


def read_mask(task: Task, kind: Mask, values: Mapping[str, Array], about: About) -> list[MaskAnswer]:
    """Return the best class for each pixel of each row's picture, from scores of shape (n, C, h, w).

    Scores are made as large as the network's input by bilinear interpolation; of the input, each pixel of the picture takes the nearest.
    """
    if task.preprocessing is None:
        raise ValueError(f"task {task.name!r} takes no images")
    frames = [frame_of(width, height, task.preprocessing) for width, height in about.pictures]
    return [_answer(task, kind, scores, frame) for scores, frame in zip(values[task.outputs[0].name], frames, strict=True)]


def _answer(task: Task, kind: Mask, scores: Array, frame: Frame) -> MaskAnswer:
    mask = frame.spread(_best(kind.least(task.scores), scores, frame.seen_width, frame.seen_height), UNKNOWN)
    counts = np.bincount(mask.ravel(), minlength=UNKNOWN + 1)
    unknown, seen = int(counts[UNKNOWN]), max(1, int(counts[:UNKNOWN].sum()))
    order = [int(index) for index in np.argsort(-counts[:UNKNOWN], kind="stable") if counts[index]]
    areas = [
        Area(label=label_of(task, index), index=index, pixels=int(counts[index]), share=counts[index] / seen) for index in order
    ]
    height, width = mask.shape
    return MaskAnswer(version=task.version, width=width, height=height, png=_png(mask), areas=areas, unknown_pixels=unknown)


def _best(least: float, scores: Array, width: int, height: int) -> NDArray[np.uint8]:
    """Return the class with the highest score for each pixel of the input; of one map, class 1 where it is above `least`."""
    scores = scores.astype(np.float32)
    if scores.shape[0] == 1:
        scores = np.concatenate([np.full_like(scores, least), scores])
    highest: NDArray[np.float32] | None = None
    best = np.zeros((height, width), np.uint8)
    for index, plane in enumerate(scores):
        plane = _resized(plane, width, height)
        if highest is None:
            highest = plane.copy()
            continue
        higher = plane > highest
        best[higher] = index
        highest[higher] = plane[higher]
    return best


def _resized(plane: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    if plane.shape == (height, width):
        return plane
    return np.asarray(Image.fromarray(plane, mode="F").resize((width, height), Image.Resampling.BILINEAR))


def _png(mask: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(mask, mode="L").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
