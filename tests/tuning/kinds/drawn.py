"""Pictures of squares, whose colours or sides are to be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from contract.kinds.kind import Kind
from contract.kinds.labels import Labels
from contract.kinds.values import Values
from tuning.data.labelled import Split, TaskData

COLOURS = ("blue", "green", "red")


def picture(colours: tuple[str, ...], side: int) -> Image.Image:
    """Return a picture with a square of each colour beside each other."""
    image = Image.new("RGB", (32, 32))
    for colour in colours:
        left = 10 * COLOURS.index(colour) if len(colours) > 1 else 0
        ImageDraw.Draw(image).rectangle([left, 0, left + side - 1, side - 1], fill=colour)
    return image


def drawn(kind: Kind, count: int = 120) -> TaskData:
    """Return pictures of squares: which colours there are, or how long the side of the white one is, and twice of that, in mm."""
    rng, images, targets = np.random.default_rng(0), [], []
    for _ in range(count):
        there, side = rng.integers(0, 2, 3), int(rng.integers(4, 28))
        shown = picture(tuple(c for c, yes in zip(COLOURS, there, strict=True) if yes), 9)
        images.append(np.asarray(shown if isinstance(kind, Labels) else picture_of(side)))
        targets.append(there if isinstance(kind, Labels) else (1000 + side, -2 * side))
    pixels, wanted = np.array(images), np.array(targets, dtype=np.float32)
    held = count // 4
    names = COLOURS if isinstance(kind, Labels) else ("side", "minus_twice")
    return TaskData("drawn", names, Split(pixels[held:], wanted[held:]), Split(pixels[:held], wanted[:held]), kind=kind)


def picture_of(side: int) -> Image.Image:
    image = Image.new("RGB", (32, 32))
    ImageDraw.Draw(image).rectangle([0, 0, side - 1, side - 1], fill="white")
    return image


def one_value(count: int = 120) -> TaskData:
    """Return pictures of which the side alone is asked for, in mm."""
    data = drawn(Values(("mm",)), count)
    parts = {name: Split(split.images, split.targets[:, :1]) for name, split in (("train", data.train), ("test", data.test))}
    return replace(data, labels=data.labels[:1], **parts)
