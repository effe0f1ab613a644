"""Attacks on the decoders of pictures and the reader of forms."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness.http_wire import request_bytes
from benchmarks.studies.hostile.attack import LOST, Attack, promised
from benchmarks.studies.hostile.send import at_once, http

_OK, _REFUSED = frozenset(("200",)), frozenset(("400", "413"))
_ANY = _OK | _REFUSED


def image_attacks(side: int) -> Iterator[Attack]:
    """Yield attacks with pictures of `side` x `side` pixels."""
    pixels = side * side
    for name, file in hostile_files(side):
        yield Attack(f"picture, {name}", _predict(file), _ANY, promised(body=len(file), pixels=pixels))
    bomb = many_scans(side, 3000)
    yield Attack("picture, JPEG of 3,000 scans, twice", at_once(2, _predict(bomb)), _REFUSED, promised(pixels=2 * pixels))
    huge = _png_head(60_000, 60_000)
    yield Attack("picture, PNG of 3.6 gigapixels", _predict(huge), _REFUSED, promised())


def form_attacks(size: int) -> Iterator[Attack]:
    """Yield attacks with forms of about `size` bytes."""
    for name, body in hostile_forms(size):
        yield Attack(f"form, {name}", _post(body, "multipart/form-data; boundary=b"), _REFUSED, promised(body=len(body)))
    yield Attack(
        "form, a long boundary", _post(b"--", f"multipart/form-data; boundary={'b' * 30_000}"), _REFUSED | {LOST}, promised()
    )


def hostile_forms(size: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and forms with the boundary "b"."""
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n'
    end = b"\r\n--b--\r\n"
    yield from {
        "many parts": (part + b"\r\n\r\n") * (size // 64) + end,
        "many headers": part + b"A: b\r\n" * (size // 6) + b"\r\n" + end,
        "a long header": part + b"A: " + b"b" * size + b"\r\n\r\n" + end,
        "a long file name": part.replace(b'"a"', b'"' + b"a" * size + b'"') + b"\r\n" + end,
        "dashes": part + b"\r\n" + b"\r\n--" * (size // 4) + end,
        "a form in a form": part + b"Content-Type: multipart/form-data; boundary=c\r\n\r\n" + b"--c\r\n\r\n" * (size // 7) + end,
        "no end": part + b"\r\n" + b"a" * size,
        "no beginning": b"a" * size,
    }.items()


def many_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG of grey whose last coefficients are refined again and again."""

    def segment(marker: int, data: bytes) -> bytes:
        return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data

    blocks = ((side + 7) // 8) ** 2
    tables = segment(0xC4, b"\x00\x01" + bytes(15) + b"\x00") + segment(0xC4, b"\x10\x01" + bytes(15) + b"\xe0")
    start = (
        b"\xff\xd8" + segment(0xDB, b"\0" + b"\x01" * 64) + segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\0")
    )
    first = segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + bytes(-(-blocks // 8))
    run = "0" + format(0x2AAA, "014b")  # the code of a run of blocks that end here, and its length
    bits = run * -(-blocks // (16384 + 0x2AAA))
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    again = segment(0xDA, b"\x01\x01\x00\x01\x3f\x10") + data
    return start + tables + first + segment(0xDA, b"\x01\x01\x00\x01\x3f\x01") + data + again * scans + b"\xff\xd9"


def hostile_files(side: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and files, some of them good, with pictures of `side` x `side` pixels."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
    flat = Image.new("RGB", (side, side), (1, 2, 3))
    yield "PNG", _saved(flat, "PNG")
    yield "PNG with transparency", _saved(flat.convert("RGBA"), "PNG")
    yield "PNG of 16 bits", _saved(Image.fromarray(np.full((side, side), 700, np.uint16)), "PNG")
    yield "PNG of a palette", _saved(flat.convert("P"), "PNG", transparency=0)
    yield "JPEG", _saved(flat, "JPEG")
    yield "JPEG of noise", _saved(noise, "JPEG", quality=95)
    yield "JPEG, progressive", _saved(flat, "JPEG", progressive=True)
    yield "JPEG in CMYK", _saved(flat.convert("CMYK"), "JPEG")
    yield "WebP", _saved(flat, "WEBP", lossless=True, method=0)
    yield "WebP, lossy", _saved(flat, "WEBP", method=0)
    yield "GIF", _saved(flat, "GIF")
    yield "BMP", _saved(flat, "BMP")
    yield "TIFF", _saved(flat, "TIFF")
    small = [Image.new("RGB", (side // 8, side // 8), (number, 2, 3)) for number in range(60)]
    for format_ in ("PNG", "GIF", "WEBP"):
        yield f"{format_}, animated", _saved(small[0], format_, save_all=True, append_images=small[1:])
    bomb = zlib.compress(bytes(30_000_000), 9)
    png = _saved(Image.new("RGB", (8, 8)), "PNG")
    yield "PNG with a profile that is a bomb", png[:33] + _chunk(b"iCCP", b"a\0\0" + bomb) + png[33:]
    yield "PNG with texts that are bombs", png[:33] + _chunk(b"zTXt", b"a\0\0" + bomb) * 20 + png[33:]
    yield "PNG of many chunks", png[:33] + _chunk(b"tEXt", b"a\0b") * 30_000 + png[33:]
    yield "PNG cut off", _saved(flat, "PNG")[:-40]
    jpeg = _saved(Image.new("RGB", (8, 8)), "JPEG")
    yield "JPEG of many segments", jpeg[:2] + (b"\xff\xe1" + struct.pack(">H", 8) + b"Exif\0\0") * 30_000 + jpeg[2:]


def _saved(image: Any, format_: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_head(width: int, height: int) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(bytes(1000))) + _chunk(b"IEND", b"")


def _predict(file: bytes):  # type: ignore[no-untyped-def]
    return _post(file, "application/octet-stream")


def _post(body: bytes, content_type: str):  # type: ignore[no-untyped-def]
    return http(request_bytes("POST", "/predict", "Connection: close", f"Content-Type: {content_type}", body=body))
