"""Images as people have them (files, bytes, PIL images, arrays, folders) as questions for a router."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.preprocessing import Preprocessing
from espalier.image_files import read_image_file, with_folders
from serving.errors import NotAnImage, TooCostlyImage
from serving.images.decode import ImageLimits, as_rows, open_picture, rows_of
from serving.images.tasks import AnyImage, Prepare, PreparedImages, as_image, check_resized
from serving.process.threads import to_thread
from serving.questions import CheckRoom

OneImage = str | Path | bytes | AnyImage
_LIMITS = ImageLimits()
_MANY = 4  # dimensions of an array of several images


@dataclass(frozen=True)
class NamedImage:
    """An image, with what it is called when something is wrong with it: its file, or "Image 3"."""

    name: str
    image: OneImage


def named_images(images: OneImage | Iterable[OneImage]) -> Iterator[NamedImage]:
    """Yield `images`, one or several, with the files of a folder in place of it. Raises NotAnImage for what is neither."""
    if isinstance(images, str | Path):
        yield from (NamedImage(str(file), file) for file in with_folders([images]))
    elif isinstance(images, bytes | Image.Image) or (isinstance(images, np.ndarray) and images.ndim != _MANY):
        yield NamedImage("The image", images)
    elif isinstance(images, Iterable):
        yield from _several(images)
    else:
        raise NotAnImage(f"An image is a path, the bytes of a file, a PIL image or an array, not {type(images).__name__}.")


def prepare_named(images: Sequence[NamedImage], skipped: dict[str, str] | None = None) -> Prepare:
    """Return how `images` become rows, one at a time, so that one picture at a time is in memory as it was sent.

    skipped: is told of images that are none, by their names, and why; they have no rows. None: they are refused.
    """

    async def prepare(ways: Sequence[Preprocessing], check_room: CheckRoom) -> PreparedImages:
        check_room(len(images))
        made, sizes = await to_thread(_all_rows, images, ways, skipped)
        return PreparedImages(as_rows(made, ways), sizes)

    return prepare


def _several(images: Iterable[Any]) -> Iterator[NamedImage]:
    for number, image in enumerate(images, 1):
        if isinstance(image, str | Path):
            yield from named_images(image)
        else:
            yield NamedImage(f"Image {number}", image)


def _all_rows(
    images: Sequence[NamedImage], ways: Sequence[Preprocessing], skipped: dict[str, str] | None
) -> tuple[list[list[NDArray[np.uint8]]], list[tuple[int, int]]]:
    """Return what each of `ways` makes of each image, and the images' widths and heights. Raises NotAnImage."""
    found = []
    for image in images:
        try:
            found.append(_rows_and_size(image, ways))
        except (NotAnImage, TooCostlyImage) as error:
            if skipped is None:
                raise
            skipped[image.name] = str(error)
    if not found:
        raise NotAnImage("None of these files is an image.")
    return [rows for rows, _ in found], [size for _, size in found]


def _rows_and_size(named: NamedImage, ways: Sequence[Preprocessing]) -> tuple[list[NDArray[np.uint8]], tuple[int, int]]:
    image, where = named.image, "" if named.name == "The image" else f" in {named.name}"
    if isinstance(image, str | Path | bytes):
        data = image if isinstance(image, bytes) else read_image_file(image)
        if len(data) > _LIMITS.max_bytes:
            raise NotAnImage(f"{named.name} has more than the limit of {_LIMITS.max_bytes} bytes for an image's file.")
        picture = open_picture(named.name, data, where, _LIMITS)
        check_resized(picture.width, picture.height, ways, _LIMITS.max_pixels, where)
        return rows_of(picture, ways), (picture.width, picture.height)
    pixels = as_image(image, named.name if where else "")
    check_resized(pixels.width, pixels.height, ways, where=where)
    try:
        return [way(pixels) for way in ways], pixels.size
    except (OSError, SyntaxError) as error:  # of a file that Pillow has opened, and not read
        raise NotAnImage(f"The image{where} is damaged or truncated.") from error
