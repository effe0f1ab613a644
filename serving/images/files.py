"""What a file says of its picture before anything is decoded: its format, and how often a decoder will go through the pixels.

Only what makes the picture is handed on. Descriptions, colour profiles, thumbnails and further frames can unpack to far more than they
take, or be millions; nobody here looks at them. What is malformed is left to the decoder, which says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from serving.errors import TooManySections

# Markers of JPEG, chunks of PNG, blocks of GIF: a photograph has some dozens, a PNG of 32 MiB some thousands.
_PNG = b"\x89PNG\r\n\x1a\n"
_SEARCHED = 1 << 20  # bytes at a time: Python's lock is kept meanwhile
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not stuffed zeros, nor what makes a scan restart
_TEM, _EOI, _SOS = 0x01, 0xD9, 0xDA
_ASIDE = frozenset([*range(0xE1, 0xEE), 0xEF, 0xFE])  # APP1 to APP13, APP15, comments; APP0 and APP14 say what the colours mean
_RUN_LENGTHS = (b"\1\0\0\0", b"\2\0\0\0")  # of a BMP, whose decoder is written in Python
_COPIED_PIXELS = 1 << 22  # of WebP: Pillow keeps Python's lock while it copies them, a hundredth of a second for so many
# Where a decoder can be made to take far more time or memory than its pixels explain:
_STRANGE_PIXELS, _STRANGE_BYTES = 1 << 14, 1 << 18
_GIF_TABLE, _GIF_CONTROL = 0x80, 0xF9


@dataclass(frozen=True)
class ImageFile:
    """A file whose format is known. data: of it, what makes the picture. scans: how often a decoder goes through the pixels.

    thread_pixels: beyond so many its decoder is not for a thread, which cannot be stopped; None: as of all pictures.
    """

    format: str
    data: bytes
    scans: int = 1
    thread_pixels: int | None = None


def read_file(data: bytes, most_sections: int) -> ImageFile | None:
    """Return what `data` is, None when it is no PNG, JPEG, WebP, GIF or BMP. Raises TooManySections."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data, most_sections)
    if data.startswith(_PNG):
        return ImageFile("PNG", _joined(data, _png_pieces(data, most_sections)))
    if data.startswith((b"GIF87a", b"GIF89a")):
        return ImageFile("GIF", _joined(data, _gif_pieces(data, most_sections)))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ImageFile("WEBP", data, thread_pixels=_COPIED_PIXELS if data[12:16] == b"VP8 " else _strange_pixels(data))
    if data.startswith(b"BM"):
        return ImageFile("BMP", data, thread_pixels=_strange_pixels(data) if data[30:34] in _RUN_LENGTHS else None)
    return None


def _strange_pixels(data: bytes) -> int:
    return _STRANGE_PIXELS if len(data) <= _STRANGE_BYTES else 0


def _joined(data: bytes, pieces: Iterator[tuple[int, int]]) -> bytes:
    """Return the `pieces` of `data`, which are in order; itself when they are all of it."""
    found: list[tuple[int, int]] = []
    for start, end in pieces:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    if found == [(0, len(data))]:
        return data
    view = memoryview(data)
    return b"".join(view[start:end] for start, end in found)


def _jpeg(data: bytes, most: int) -> ImageFile:
    scans = 0
    pieces = [(0, 2)]
    for start, end, marker in _jpeg_segments(data, most):
        if marker in _ASIDE:
            continue
        scans += marker == _SOS
        pieces.append((start, end))
    return ImageFile("JPEG", _joined(data, iter(pieces)), max(1, scans))


def _jpeg_segments(data: bytes, most: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, marker) of each; that of a scan reaches to the next one. As libjpeg reads them."""
    place = 2
    for _ in range(most):
        start = _next_marker(data, place)
        if start < 0:
            return
        marker, place = data[start + 1], start + 2
        if marker not in (_TEM, _EOI):
            place += max(2, int.from_bytes(data[place : place + 2]))
        if marker == _SOS:
            after = _next_marker(data, place)
            place = len(data) if after < 0 else after
        yield start, place, marker
        if marker == _EOI:
            return
    raise TooManySections(most)


def _next_marker(data: bytes, place: int) -> int:
    """Return where the next one begins, -1 for none."""
    while place < len(data):
        found = _MARKER.search(data, place, place + _SEARCHED + 1)
        if found:
            return found.start()
        place += _SEARCHED
    return -1


def _png_pieces(data: bytes, most: int) -> Iterator[tuple[int, int]]:
    """Yield where the signature, the chunks that no decoder may pass over, and those of transparency are."""
    yield 0, len(_PNG)
    start = len(_PNG)
    for _ in range(most):
        kind, end = data[start + 4 : start + 8], start + 12 + int.from_bytes(data[start : start + 4])
        if len(kind) < 4 or end > len(data):
            yield start, len(data)
            return
        if kind[:1].isupper() or kind == b"tRNS":
            yield start, end
        if kind == b"IEND":
            return
        start = end
    raise TooManySections(most)


def _gif_pieces(data: bytes, most: int) -> Iterator[tuple[int, int]]:
    """Yield where the header, what is said of the first frame, and the rest from it on are: a decoder reads no further than it."""
    flags = data[10] if len(data) > 10 else 0
    start = 13 + (3 << (flags & 7) + 1 if flags & _GIF_TABLE else 0)
    yield 0, min(start, len(data))
    count = 0
    while data[start : start + 1] == b"!":
        end, count = _skip_blocks(data, start + 2, count, most)
        if data[start + 1 : start + 2] == bytes([_GIF_CONTROL]):
            yield start, min(end, len(data))
        start = end
    if start < len(data):
        yield start, len(data)


def _skip_blocks(data: bytes, place: int, count: int, most: int) -> tuple[int, int]:
    """Return where the blocks that begin at `place` end, and how many there were up to there, `count` of them before."""
    while count < most:
        count += 1
        size = data[place] if place < len(data) else 0
        place += 1 + size
        if not size:
            return place, count
    raise TooManySections(most)
