"""Image files as people have them, and as nobody should send them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

FORMATS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "LA", {}),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "I;16", {}),
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    ("JPEG", "CMYK", {"progressive": True, "subsampling": 0}),
    ("JPEG", "L", {}),
    ("WEBP", "RGB", {"method": 0}),
    ("WEBP", "RGB", {"method": 0, "lossless": True}),
    ("WEBP", "RGBA", {"method": 0}),
    ("GIF", "P", {}),
    ("GIF", "P", {"transparency": 3}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
)
MOVING = (("PNG", "RGB", {}), ("GIF", "P", {}), ("WEBP", "RGB", {"method": 0}))


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return one with colours that change slowly, and some noise."""
    values = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def file(kind: str, image: Image.Image, **options: Any) -> bytes:
    """Return `image` in the format `kind`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def segment(marker: int, data: bytes) -> bytes:
    """Return a part of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(png: bytes, chunks: bytes) -> bytes:
    """Return `png` with `chunks` before its pixels, where decoders look at them."""
    return png[:33] + chunks + png[33:]


def many_scans(size: int, scans: int) -> bytes:
    """Return a grey progressive JPEG of `size` pixels squared that a decoder goes through `scans` times; each takes some bytes."""
    blocks = (-(-size // 8)) ** 2
    start = (
        b"\xff\xd8"
        + segment(0xDB, b"\0" + b"\x01" * 64)
        + segment(0xC2, struct.pack(">BHHB", 8, size, size, 1) + b"\x01\x11\x00")
    )
    tables = segment(0xC4, b"\x00\x01" + b"\0" * 15 + b"\x00") + segment(0xC4, b"\x10\x01" + b"\0" * 15 + b"\xe0")
    first = segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + bytes(-(-blocks // 8))
    run = 16384 + 0x2AAA  # blocks of which nothing is said
    bits = ("0" + format(0x2AAA, "014b")) * -(-blocks // run)
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\x00")
    second = segment(0xDA, b"\x01\x01\x00\x01\x3f\x01") + data
    again = segment(0xDA, b"\x01\x01\x00\x01\x3f\x10") + data  # looks at all that is known of each block
    return start + tables + first + second + again * (scans - 2) + b"\xff\xd9"


def run_lengths(size: int, data: bytes) -> bytes:
    """Return a BMP of 256 colours and `size` pixels squared, whose compressed pixels are `data`."""
    start = 14 + 40 + 4 * 256
    head = struct.pack("<IiiHHIIiiII", 40, size, size, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + head + bytes(4 * 256) + data


def many_tables(side: int) -> bytes:
    """Return a lossless WebP of `side` pixels squared with tables of its own for each 4 x 4 of them: 5 kB of memory from 3 bytes."""
    groups = (side // 4) ** 2
    one = "1000"  # a code of one symbol, 0, which takes no bits
    # All of 256 symbols in 8 bits each: the lengths of codes are themselves coded, of which only 0 and 8 occur.
    order = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8)
    lengths = "0" + _bits(len(order) - 4, 4) + "".join(_bits(int(length in (0, 8)), 3) for length in order)
    red, green = lengths + "0" + "1" * 256, lengths + "1" + _bits(3, 3) + _bits(254, 8) + "1" * 256
    which = "".join(f"{group & 255:08b}{group >> 8:08b}" for group in range(groups))  # in green and red
    head = _bits(0x2F, 8) + _bits(side - 1, 14) * 2 + "0" + _bits(0, 3) + "0" + "0" + "1" + _bits(0, 3) + "0"
    bits = head + green + red + one * 3 + which + one * 5 * groups
    bits += "0" * (-len(bits) % 16)
    data = int(bits[::-1], 2).to_bytes(len(bits) // 8, "little")
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def _bits(value: int, count: int) -> str:
    """Return `count` bits of `value`, the lowest first."""
    return format(value, f"0{count}b")[::-1]
