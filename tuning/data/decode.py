"""Images that are listed but not decoded yet, and how they become one array."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.preprocessing import Preprocessing, UnknownRange
from contract.system import available_cores
from tuning.data.left_out import UNREADABLE, LeftOut, together
from tuning.errors import BadData

MOST_BYTES = 8 * 1024**3  # of decoded images: they are kept in memory

_BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what PIL raises on bytes that are no image
_MOST_THREADS = 8
_CHUNK = 32  # images that a thread takes at a time


@dataclass(frozen=True)
class Item:
    """An image that can be opened when it is wanted, and its class. name: for messages, as the user knows the image."""

    name: str
    target: int
    open_image: Callable[[], Image.Image]


def decode(items: Sequence[Item], preprocessing: Preprocessing) -> tuple[NDArray[np.uint8], NDArray[np.int64], LeftOut]:
    """Return (images, rows, left out): the readable images in the order of `items`, their rows, and the names of the others.

    images: uint8, (n, height, width, 3), preprocessed but not normalised. Decoded in threads, as PIL lets others run meanwhile.
    """
    images = np.empty((len(items), preprocessing.height, preprocessing.width, 3), dtype=np.uint8)
    reasons = [""] * len(items)  # why it is left out, if it is

    def decode_one(row: int) -> None:
        try:
            with items[row].open_image() as image:
                images[row] = preprocessing(image)
        except UnknownRange as error:
            reasons[row] = f"as they {error}"
        except _BROKEN:
            reasons[row] = UNREADABLE

    for_each_row(decode_one, len(items))
    rows = np.array([row for row, reason in enumerate(reasons) if not reason], dtype=np.int64)
    left_out = together(*({reason: (item.name,)} for item, reason in zip(items, reasons, strict=True) if reason))
    return (images[rows] if left_out else images), rows, left_out


def require_memory(count: int, preprocessing: Preprocessing, limit: int = MOST_BYTES) -> None:
    """Raise BadData when `count` decoded images would take more than `limit` bytes."""
    size = count * preprocessing.height * preprocessing.width * 3
    if size > limit:
        fitting = limit // (size // count)
        raise BadData(
            f"{count} images of {preprocessing.height}x{preprocessing.width} pixels take {size / 1024**3:.1f} GiB of memory, more "
            f"than {limit / 1024**3:g} GiB; use fewer training or test images (at most {fitting} in all)."
        )


def for_each_row(work: Callable[[int], None], count: int) -> None:
    """Call `work` with 0 .. count - 1, in threads; each call must write to its own row only."""

    def work_on(chunk: range) -> None:
        for row in chunk:
            work(row)

    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    with ThreadPoolExecutor(min(_MOST_THREADS, available_cores())) as pool:
        for _ in pool.map(work_on, chunks):
            pass  # an error in a thread is raised here
