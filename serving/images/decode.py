"""Image files to PIL images, with limits that hold before anything is decoded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, WebPImagePlugin

from contract.errors import EspalierError
from contract.preprocessing import Preprocessing, to_rgb
from serving.errors import ImageFileTooLarge, NotAnImage, TooCostlyImage, TooManyPixels, TooManyScans
from serving.images.files import ImageFile, read_file
from serving.images.tasks import MAX_PIXELS, ImageRows, check_resized
from serving.process.work_pool import Check, no_check

_KNOWN = "PNG, JPEG, WebP, GIF or BMP"
_BLOCK = 8  # JPEG decodes whole blocks of so many pixels squared


@dataclass(frozen=True)
class ImageLimits:
    """The largest file, and the largest picture in it, also when it is resized: a few kilobytes can unpack to gigabytes.

    For a form with several files: how many, how large all together with what is between them, and all pictures' pixels together; so,
    too, what becomes of them for all tasks when they are resized.
    max_waiting_pixels: of requests that wait for a thread to decode them, before and after they are resized; some 100 million take a
    core about a second. Beyond it requests are refused, unless nothing waits. Those that wait for a process count for themselves.
    max_thread_cost: pixels times scans of a picture that a thread decodes, which cannot be ended; one with more goes to a process.
    max_scans: of a progressive JPEG with the most pixels, people's have some ten; a smaller one may have more. max_sections: of a file.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = MAX_PIXELS
    max_files: int = 64
    max_total_bytes: int = 64 * 1024 * 1024
    max_total_pixels: int = 2 * MAX_PIXELS
    max_waiting_pixels: int = 400_000_000
    max_thread_cost: int = 100_000_000
    max_scans: int = 12
    max_sections: int = 1 << 16

    @property
    def max_scan_pixels(self) -> int:
        """Return the most pixels times scans of a picture."""
        return self.max_scans * self.max_pixels


@dataclass(frozen=True)
class Picture:
    """A picture of which only the header has been read.

    where: what follows "the image" when something is wrong with it. opened: the file as a thread goes on with it, None: from its beginning.
    """

    file: ImageFile
    width: int
    height: int
    where: str
    opened: Image.Image | None = None

    @property
    def pixels(self) -> int:
        """Return how many it has."""
        return self.width * self.height

    @property
    def cost(self) -> int:
        """Return how many pixels a decoder goes through, in all scans."""
        if self.file.format != "JPEG":
            return self.pixels
        return self.file.scans * (-(-self.width // _BLOCK) * -(-self.height // _BLOCK)) * _BLOCK**2

    def is_heavy(self, limits: ImageLimits) -> bool:
        """Whether a thread is not to decode it."""
        most = self.file.thread_pixels
        return self.cost > limits.max_thread_cost or (most is not None and self.pixels > most)

    def resized_pixels(self, ways: Sequence[Preprocessing]) -> int:
        """Return how many it has when it is resized, for all of `ways` together."""
        sizes = (way.resized_size(self.width, self.height) for way in ways)
        return sum(width * height for width, height in sizes)


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """Return the picture in `data`, of an animation the first; orientation tags are ignored, as in training.

    Raises BodyTooLarge, NotAnImage.
    """
    return _decode(open_picture("The body", data, "", limits))


def open_picture(what: str, data: bytes, where: str, limits: ImageLimits, check: Check = no_check) -> Picture:
    """Return the picture in `data`. Raises BodyTooLarge, NotAnImage.

    what, where: "File 1", " in file 1", or what it is called. check: as of `decode`, also later.
    """
    if not data:
        raise NotAnImage(f"{what} is empty; send the bytes of an image ({_KNOWN}).")
    if len(data) > limits.max_bytes:
        raise ImageFileTooLarge(limits.max_bytes)
    file = read_file(data, limits.max_sections)
    if file is None:
        raise NotAnImage(f"{what} is not an image; send the bytes of one ({_KNOWN}).")
    image = _read_header(what, file, limits, check)
    # WebP's decoder copies the file and asks for room for its canvases: not while the picture waits.
    picture = Picture(file, *image.size, where, image if file.format != "WEBP" else None)
    if picture.pixels > limits.max_pixels:
        raise _too_large(limits)
    if file.scans > 1 and picture.cost > limits.max_scan_pixels:
        raise TooManyScans(file.scans, picture.pixels, limits.max_scan_pixels, where)
    return picture


def open_pictures(
    files: Sequence[tuple[str, str, bytes]], ways: Sequence[Preprocessing], limits: ImageLimits, check: Check = no_check
) -> list[Picture]:
    """Return the pictures in `files`, in their order. Nothing is decoded; all limits are known to hold, also for what `ways` make of them.

    files: "File 1", " in file 1" or what each is called, and its bytes. Raises BodyTooLarge, and NotAnImage naming the file.
    """
    pictures = []
    for what, where, data in files:
        check()
        pictures.append(open_picture(what, data, where, limits, check))
    for picture in pictures:
        check_resized(picture.width, picture.height, ways, limits.max_pixels, picture.where)
    limit = limits.max_total_pixels
    if sum(picture.pixels for picture in pictures) > limit:
        raise TooManyPixels(f"The images have more than the limit of {limit} pixels together; send fewer at once.")
    if sum(picture.resized_pixels(ways) for picture in pictures) > limit:
        raise TooManyPixels(
            f"Resized for each way in which the tasks take images, there would be more than the limit of {limit} pixels together; "
            "crop long and narrow images first, send fewer at once, or ask for fewer tasks."
        )
    return pictures


def count_pixels(pictures: Sequence[Picture], ways: Sequence[Preprocessing]) -> int:
    """Return the pixels that `make_rows` goes through: those of the pictures, and those that they become when they are resized."""
    return sum(picture.pixels + picture.resized_pixels(ways) for picture in pictures)


def rows_of(picture: Picture, ways: Sequence[Preprocessing], check: Check = no_check) -> list[NDArray[np.uint8]]:
    """Return what each of `ways` makes of `picture`. Raises NotAnImage, and what `check` raises, which is called between the steps."""
    made = []
    try:
        image = to_rgb(_decode(picture, check))  # once for all ways
        for way in ways:
            check()
            made.append(way(image))
    except MemoryError as error:
        raise TooCostlyImage(picture.where) from error
    return made


def make_rows(pictures: list[Picture], ways: Sequence[Preprocessing], check: Check = no_check) -> ImageRows:
    """Return what each of `ways` makes of `pictures`, which are taken out of the list: one is decoded at a time, and then let go of.

    Raises NotAnImage, and what `check` raises.
    """
    made = []
    while pictures:
        made.append(rows_of(pictures.pop(0), ways, check))
    return as_rows(made, ways)


def as_rows(made: Sequence[Sequence[NDArray[np.uint8]]], ways: Sequence[Preprocessing]) -> ImageRows:
    """Return what `rows_of` made of each picture as what each way made of all."""
    return {way: np.stack(rows) for way, rows in zip(ways, zip(*made, strict=True), strict=True)}


def _decode(picture: Picture, check: Check = no_check) -> Image.Image:
    """Return `picture` decoded. Raises NotAnImage, and what `check` raises, which is called before each 64 KiB of the file."""
    check()
    try:
        image = picture.opened or _open(picture.file, check)
        image.load()
    except (EspalierError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        check()  # may be what has ended it
        raise NotAnImage(f"The {picture.file.format} image{picture.where} is damaged or truncated.") from error
    return image


class _CheckedFile(io.BytesIO):
    """A file in memory. `check` is called before each read: a decoder that is not wanted any more gets nothing more."""

    def __init__(self, data: bytes, check: Check) -> None:
        super().__init__(data)
        self._check = check

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes."""
        self._check()
        return super().read(size)


class _WebP(WebPImagePlugin.WebPImageFile):
    """One whose decoder, with its two canvases of 4 bytes a pixel, is let go of before there is room for the picture."""

    def load_prepare(self) -> None:
        """Make room for the picture."""
        self._decoder = None
        super().load_prepare()


def _open(file: ImageFile, check: Check) -> Image.Image:
    stream = io.BytesIO(file.data) if check is no_check else _CheckedFile(file.data, check)
    return _WebP(stream) if file.format == "WEBP" else Image.open(stream, formats=(file.format,))


def _read_header(what: str, file: ImageFile, limits: ImageLimits, check: Check) -> Image.Image:
    try:
        return _open(file, check)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(limits) from error
    except Exception as error:  # see _decode
        check()
        raise NotAnImage(f"{what} is not an image; send the bytes of one ({_KNOWN}).") from error


def _too_large(limits: ImageLimits) -> NotAnImage:
    return TooManyPixels(f"The image has more than the limit of {limits.max_pixels} pixels; send a smaller one.")
