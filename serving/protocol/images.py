"""Image files to PIL images, with limits that hold before anything is decoded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.errors import BodyTooLarge, NotAnImage
from serving.image_tasks import MAX_PIXELS, Rows, check_resized
from serving.preprocessing import Preprocessing, to_rgb

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_KNOWN = "PNG, JPEG, WebP, GIF or BMP"


@dataclass(frozen=True)
class ImageLimits:
    """The largest file, and the largest picture in it, also when it is resized: a few kilobytes can unpack to gigabytes.

    For a form with several files: how many, how large all together with what is between them, and all pictures' pixels together; so,
    too, what becomes of them for all tasks when they are resized.
    max_waiting_pixels: of requests that wait for a thread to decode them, before and after they are resized; some 100 million take a
    core about a second. Beyond it requests are refused, unless nothing waits.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = MAX_PIXELS
    max_files: int = 64
    max_total_bytes: int = 64 * 1024 * 1024
    max_total_pixels: int = 100_000_000
    max_waiting_pixels: int = 400_000_000


@dataclass(frozen=True)
class Picture:
    """A picture of which only the header has been read. where: what follows "the image" when something is wrong with it."""

    image: Image.Image
    where: str

    @property
    def pixels(self) -> int:
        """Return how many it has."""
        return self.image.width * self.image.height

    def resized_pixels(self, ways: Sequence[Preprocessing]) -> int:
        """Return how many it has when it is resized, for all of `ways` together."""
        sizes = (way.resized_size(self.image.width, self.image.height) for way in ways)
        return sum(width * height for width, height in sizes)


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """Return the picture in `data`, of an animation the first; orientation tags are ignored, as in training.

    Raises BodyTooLarge, NotAnImage.
    """
    return _decode(Picture(_open("The body", data, limits), ""))


def open_pictures(files: Sequence[tuple[str, str, bytes]], ways: Sequence[Preprocessing], limits: ImageLimits) -> list[Picture]:
    """Return the pictures in `files`, in their order. Nothing is decoded; all limits are known to hold, also for what `ways` make of them.

    files: "File 1", " in file 1" or what each is called, and its bytes. Raises BodyTooLarge, and NotAnImage naming the file.
    """
    pictures = [Picture(_open(what, data, limits), where) for what, where, data in files]
    for picture in pictures:
        check_resized(picture.image.width, picture.image.height, ways, limits.max_pixels, picture.where)
    limit = limits.max_total_pixels
    if sum(picture.pixels for picture in pictures) > limit:
        raise NotAnImage(f"The images have more than the limit of {limit} pixels together; send fewer at once.")
    if sum(picture.resized_pixels(ways) for picture in pictures) > limit:
        raise NotAnImage(
            f"Resized for each way in which the tasks take images, there would be more than the limit of {limit} pixels together; "
            "crop long and narrow images first, send fewer at once, or ask for fewer tasks."
        )
    return pictures


def count_pixels(pictures: Sequence[Picture], ways: Sequence[Preprocessing]) -> int:
    """Return the pixels that `make_rows` goes through: those of the pictures, and those that they become when they are resized."""
    return sum(picture.pixels + picture.resized_pixels(ways) for picture in pictures)


def make_rows(pictures: list[Picture], ways: Sequence[Preprocessing]) -> Rows:
    """Return what each of `ways` makes of `pictures`, which are taken out of the list: one is decoded at a time, and then let go of.

    Raises NotAnImage.
    """
    rows: dict[Preprocessing, list[NDArray[np.uint8]]] = {way: [] for way in ways}
    while pictures:
        image = to_rgb(_decode(pictures.pop(0)))  # once for all ways
        for way, made in rows.items():
            made.append(way(image))
    return {way: np.stack(made) for way, made in rows.items()}


def _open(what: str, data: bytes, limits: ImageLimits) -> Image.Image:
    """Read the header only."""
    if not data:
        raise NotAnImage(f"{what} is empty; send the bytes of an image ({_KNOWN}).")
    if len(data) > limits.max_bytes:
        raise BodyTooLarge(limits.max_bytes)
    image = _read_header(what, data, limits)
    if image.width * image.height > limits.max_pixels:
        raise _too_large(limits)
    return image


def _decode(picture: Picture) -> Image.Image:
    image = picture.image
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise NotAnImage(f"The {image.format} image{picture.where} is damaged or truncated.") from error
    return image


def _read_header(what: str, data: bytes, limits: ImageLimits) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(limits) from error
    except Exception as error:  # see _decode
        raise NotAnImage(f"{what} is not an image; send the bytes of one ({_KNOWN}).") from error


def _too_large(limits: ImageLimits) -> NotAnImage:
    return NotAnImage(f"The image has more than the limit of {limits.max_pixels} pixels; send a smaller one.")
