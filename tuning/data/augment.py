"""Augmented views of images, drawn before training, so that frozen blocks can run once over all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tuning.data.decode import MOST_BYTES
from tuning.errors import BadData, BadOptions

_PADDING = 8  # an eighth of the image is added on each side


def draw_views(images: NDArray[np.uint8], count: int, seed: int, *, flip: bool = False) -> NDArray[np.uint8]:
    """Return `count` augmented views of every image: uint8, (count, n, height, width, 3) for images of (n, height, width, 3).

    A view is a random crop, of the image's size, out of the image padded with its reflection by an eighth on each side; with
    `flip` half of them are mirrored (letters and digits must not be). View k is the same whatever `count`.
    Raises BadOptions for a count below 1, BadData when the views would not fit into memory.
    """
    if count < 1:
        raise BadOptions(f"The number of augmented views must be at least 1, not {count}.")
    if count * images.nbytes > MOST_BYTES:
        raise BadData(
            f"{count} views of {len(images)} images take {count * images.nbytes / 1024**3:.1f} GiB of memory, more than "
            f"{MOST_BYTES / 1024**3:g} GiB; draw fewer views (at most {MOST_BYTES // images.nbytes})."
        )
    views = np.empty((count, *images.shape), dtype=np.uint8)
    for number in range(count):
        _draw_view(images, np.random.default_rng((seed, number)), flip, views[number])
    return views


def _draw_view(images: NDArray[np.uint8], rng: np.random.Generator, flip: bool, out: NDArray[np.uint8]) -> None:
    _, height, width, _ = images.shape
    pad_y, pad_x = height // _PADDING, width // _PADDING
    tops = rng.integers(0, 2 * pad_y, len(images), endpoint=True)
    lefts = rng.integers(0, 2 * pad_x, len(images), endpoint=True)
    mirrored = rng.random(len(images)) < 0.5
    for row, (image, top, left) in enumerate(zip(images, tops, lefts, strict=True)):
        padded = np.pad(image, ((pad_y, pad_y), (pad_x, pad_x), (0, 0)), mode="reflect")
        crop = padded[top : top + height, left : left + width]
        out[row] = crop[:, ::-1] if flip and mirrored[row] else crop
