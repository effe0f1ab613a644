"""Image files to PIL images, with limits that hold before anything is decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from serving.errors import BodyTooLarge, NotAnImage

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_KNOWN = "PNG, JPEG, WebP, GIF or BMP"


@dataclass(frozen=True)
class ImageLimits:
    """The largest file, and the largest picture in it: a few kilobytes can unpack to gigabytes."""

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 50_000_000


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """Return the picture in `data`, of an animation the first; orientation tags are ignored, as in training.

    Raises BodyTooLarge, NotAnImage.
    """
    if not data:
        raise NotAnImage(f"The body is empty; send the bytes of an image ({_KNOWN}).")
    if len(data) > limits.max_bytes:
        raise BodyTooLarge(limits.max_bytes)
    image = _open(data, limits)
    if image.width * image.height > limits.max_pixels:
        raise _too_large(limits)
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise NotAnImage(f"The {image.format} image is damaged or truncated.") from error
    return image


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    """Read the header only."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(limits) from error
    except Exception as error:  # see decode_image
        raise NotAnImage(f"The body is not an image; send the bytes of one ({_KNOWN}).") from error


def _too_large(limits: ImageLimits) -> NotAnImage:
    return NotAnImage(f"The image has more than the limit of {limits.max_pixels} pixels; send a smaller one.")
