"""Image files to PIL images, with limits that hold before anything is decoded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from serving.errors import BodyTooLarge, NotAnImage
from serving.protocol.multipart import File

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_KNOWN = "PNG, JPEG, WebP, GIF or BMP"


@dataclass(frozen=True)
class ImageLimits:
    """The largest file, and the largest picture in it: a few kilobytes can unpack to gigabytes.

    For a form with several files: how many, how large all together with what is between them, and all pictures' pixels together.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_files: int = 64
    max_total_bytes: int = 64 * 1024 * 1024
    max_total_pixels: int = 100_000_000


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """Return the picture in `data`, of an animation the first; orientation tags are ignored, as in training.

    Raises BodyTooLarge, NotAnImage.
    """
    return _decode(_open("The body", data, limits), "")


def decode_files(files: Sequence[File], limits: ImageLimits) -> list[Image.Image]:
    """Return the pictures in `files`, in their order; nothing is decoded before the limits are known to hold for all of them.

    Raises BodyTooLarge, and NotAnImage naming the file.
    """
    names = [f"file {number} ({file.name!r})" for number, file in enumerate(files, 1)]
    images = [_open(f"F{name[1:]}", file.data, limits) for name, file in zip(names, files, strict=True)]
    if sum(image.width * image.height for image in images) > limits.max_total_pixels:
        raise NotAnImage(f"The images have more than the limit of {limits.max_total_pixels} pixels together; send fewer at once.")
    return [_decode(image, f" in {name}") for name, image in zip(names, images, strict=True)]


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


def _decode(image: Image.Image, where: str) -> Image.Image:
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise NotAnImage(f"The {image.format} image{where} is damaged or truncated.") from error
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
