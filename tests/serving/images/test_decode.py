"""Bytes that are images, or are none: decoded within limits, never by a crash."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.errors import BodyTooLarge, NotAnImage
from serving.images.decode import ImageLimits, decode_image


def encoded_image(kind: str, size: tuple[int, int] = (9, 7), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 128).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_common_formats_are_decoded(kind: str) -> None:
    assert decode_image(encoded_image(kind, mode="L"), ImageLimits()).size == (9, 7)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    data = encoded_image(kind, (64, 64))
    with pytest.raises(NotAnImage, match=r"damaged or truncated|not an image"):
        decode_image(data[: len(data) * 2 // 3], ImageLimits())


def test_what_is_no_image_is_refused() -> None:
    for data in (b"", b"hello", b"\x89PNG\r\n\x1a\n", encoded_image("TIFF"), b"<svg/>"):
        with pytest.raises(NotAnImage, match="send the bytes of"):
            decode_image(data, ImageLimits())


@settings(max_examples=50)
@given(st.binary(max_size=60), st.integers(0, 200))
def test_damaged_images_never_crash(noise: bytes, place: int) -> None:
    data = encoded_image("PNG", (20, 20))
    with suppress(NotAnImage):
        decode_image(data[:place] + noise + data[place + len(noise) :], ImageLimits())


def test_limits_hold_before_anything_is_decoded() -> None:
    with pytest.raises(BodyTooLarge, match="limit of 20 bytes"):
        decode_image(encoded_image("PNG"), ImageLimits(max_bytes=20))
    with pytest.raises(NotAnImage, match="more than the limit of 62 pixels"):
        decode_image(encoded_image("PNG"), ImageLimits(max_pixels=62))
    bomb = bytearray(encoded_image("BMP"))
    bomb[18:26] = (60_000).to_bytes(4, "little") * 2  # 3.6 gigapixels, says the header
    with pytest.raises(NotAnImage, match="pixels; send a smaller one"):
        decode_image(bytes(bomb), ImageLimits())
