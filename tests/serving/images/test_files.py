"""What a file costs is known before it is decoded, and only what makes the picture is read."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contract.preprocessing import to_rgb
from serving.errors import NotAnImage, TooManyScans, TooManySections
from serving.images.decode import ImageLimits, decode_image, open_picture
from serving.images.files import ImageFile
from serving.images.files import read_file as read
from tests.processor_time import least_s
from tests.serving.pictures import FORMATS, MOVING, chunk, file, many_scans, picture, run_lengths, segment, with_chunks

LIMITS = ImageLimits()
MAX_SECTIONS = LIMITS.max_sections


def read_file(data: bytes) -> ImageFile | None:
    return read(data, MAX_SECTIONS)


TEXT = b"what nobody here looks at \xff\xda\xff\xd9" * 100
STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\x08\0\x08\0\x80\0\0", b"RIFF\0\0\0\0WEBPVP8 ", b"BM")


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(to_rgb(image))


@pytest.mark.parametrize(("kind", "mode", "options"), FORMATS)
def test_a_file_without_what_nobody_looks_at_is_the_same_picture(kind: str, mode: str, options: dict[str, Any]) -> None:
    more = {"GIF": {"comment": TEXT}, "JPEG": {"comment": TEXT, "exif": b"Exif\0\0" + TEXT, "icc_profile": TEXT}}.get(kind, {})
    data = file(kind, picture(50, 30, mode), **options, **more)
    if kind == "PNG":
        text = chunk(b"tEXt", b"a\0" + TEXT)
        data = with_chunks(data, text)[:-12] + text + data[-12:]
    found = read_file(data)
    assert found is not None
    assert TEXT[:20] not in found.data
    np.testing.assert_array_equal(pixels(decode_image(data, LIMITS)), pixels(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(("kind", "mode", "options"), MOVING)
def test_of_an_animation_only_the_first_picture_is_decoded(kind: str, mode: str, options: dict[str, Any]) -> None:
    frames = [picture(80, 60, mode).rotate(angle) for angle in range(0, 360, 10)]
    data = file(kind, frames[0], save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(pixels(decode_image(data, LIMITS)), pixels(Image.open(io.BytesIO(data))))
    if kind == "PNG":
        assert len(getattr(read_file(data), "data", b"")) < len(data) / 10


@pytest.mark.parametrize("scans", [2, 3, 40])
def test_scans_are_counted(scans: int) -> None:
    assert getattr(read_file(many_scans(16, scans)), "scans", 0) == scans


def test_what_looks_like_a_scan_is_none_inside_of_something_else() -> None:
    for progressive, scans in ((False, 1), (True, 10)):
        data = file("JPEG", picture(50, 30), progressive=progressive, exif=b"Exif\0\0" + TEXT, comment=TEXT)
        assert getattr(read_file(data), "scans", 0) == scans


@pytest.mark.parametrize(
    "hidden", [b"\xff\xfe\0\0", b"\xff\xfe\0\1", b"\xff\xfe\0\2", b"\xff\xff\xff", b"\xff\x01", b"\xff\xd3", b"rubbish"]
)
def test_scans_do_not_hide_behind_what_a_decoder_passes_over(hidden: bytes) -> None:
    whole = many_scans(16, 30)
    start = whole.index(b"\xff\xda", whole.index(b"\xff\xda") + 1)
    data = whole[:start] + hidden + whole[start:]
    assert getattr(read_file(data), "scans", 0) == 30


def test_more_scans_than_the_limit_are_refused_and_those_of_the_largest_picture_are_not() -> None:
    assert open_picture("It", many_scans(7000, 12), "", LIMITS).pixels == 49_000_000
    with pytest.raises(
        TooManyScans, match="has 13 scans of 49000000 pixels, and 600000000 pixels in all scans together are the limit"
    ):
        open_picture("It", many_scans(7000, 13), "", LIMITS)
    assert open_picture("It", many_scans(100, 3000), "", LIMITS).pixels == 10_000  # costs as much as one of 30 million


def test_a_narrow_picture_costs_the_whole_blocks_that_are_decoded() -> None:
    narrow = bytearray(many_scans(8, 100))
    place = narrow.index(b"\xff\xc2") + 5
    narrow[place : place + 4] = b"\xff\x00\x00\x01"  # 65,280 high, 1 wide
    assert open_picture("It", bytes(narrow), "", LIMITS).cost == 100 * 65_280 * 8


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + segment(0xFE, b"") * (MAX_SECTIONS + 1),
        b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"") * (MAX_SECTIONS + 1),
        STARTS[2] + b"\0" * 6 + b"!\xfe\x01a\0" * MAX_SECTIONS,
        STARTS[2] + b"\0" * 6 + b"!\xfe" + b"\x01a" * MAX_SECTIONS,
    ],
)
def test_more_sections_than_the_limit_are_refused(data: bytes) -> None:
    with pytest.raises(TooManySections, match="more than the limit of 65536 sections"):
        read_file(data)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(STARTS), st.binary(max_size=100), st.integers(1, 30))
def test_whatever_follows_a_good_beginning_is_read_or_refused(start: bytes, rest: bytes, times: int) -> None:
    with suppress(NotAnImage):
        found = read_file(start + rest * times)
        assert found is not None
        assert len(found.data) <= len(start + rest * times)
        decode_image(start + rest * times, LIMITS)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_damage_is_a_sentence(what: tuple[str, str, dict[str, Any]], place: int, noise: bytes) -> None:
    kind, mode, options = what
    data = bytearray(file(kind, picture(24, 16, mode), **options))
    place %= len(data)
    data[place : place + len(noise)] = noise
    with suppress(NotAnImage):
        decode_image(bytes(data), ImageLimits(max_pixels=100_000))


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO", "TGA", "PCX", "DIB", "JPEG2000"])
def test_other_formats_are_refused_by_their_first_bytes(kind: str) -> None:
    data = file(kind, picture(24, 16)) + bytes(16 << 20)

    def refuse() -> None:
        with pytest.raises(NotAnImage, match="send the bytes of one"):
            decode_image(data, LIMITS)

    assert least_s(refuse, 0.05) < 0.05


BOMB = zlib.compress(bytes(1_000_000))


@pytest.mark.parametrize(
    "data",
    [
        with_chunks(file("PNG", picture(8, 8)), chunk(b"zTXt", b"a\0\0" + BOMB) * 500),
        with_chunks(file("PNG", picture(8, 8)), chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB) * 500),
        with_chunks(file("PNG", picture(8, 8)), chunk(b"iCCP", b"a\0\0" + BOMB) * 500),
        file("GIF", picture(8, 8))[:-1].replace(b",", b"!\xfe" + (b"\xff" + b"a" * 255) * 10_000 + b"\0,", 1),
        file("JPEG", picture(8, 8)).replace(b"\xff\xdb", (segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 200) + b"\xff\xdb", 1),
        file("JPEG", picture(8, 8)).replace(b"\xff\xdb", bytes(10_000_000) + b"\xff\xdb", 1),
    ],
    ids=["zTXt", "iTXt", "iCCP", "comments", "EXIF", "rubbish"],
)
def test_what_is_not_looked_at_takes_no_time(data: bytes) -> None:
    assert decode_image(data, LIMITS).size == (8, 8)
    assert least_s(lambda: decode_image(data, LIMITS), 0.2) < 0.2


@pytest.mark.parametrize(
    ("size", "kind", "options", "is_heavy"),
    [
        ((2000, 2000), "JPEG", {}, False),
        ((2000, 2000), "PNG", {}, False),
        ((2000, 2000), "WEBP", {"method": 0}, False),
        ((2200, 2000), "WEBP", {"method": 0}, True),
        ((128, 128), "WEBP", {"lossless": True}, False),
        ((129, 128), "WEBP", {"lossless": True}, True),
    ],
)
def test_what_is_decoded_in_a_process(size: tuple[int, int], kind: str, options: dict[str, Any], is_heavy: bool) -> None:
    assert open_picture("It", file(kind, Image.new("RGB", size), **options), "", LIMITS).is_heavy(LIMITS) == is_heavy


def test_scans_make_a_picture_costly() -> None:
    assert [open_picture("It", many_scans(1000, scans), "", LIMITS).is_heavy(LIMITS) for scans in (98, 102)] == [False, True]


@pytest.mark.parametrize(("size", "runs", "is_heavy"), [(128, 10, False), (129, 10, True), (128, 200_000, True)])
def test_run_lengths_are_for_a_process_where_they_are_many(size: int, runs: int, is_heavy: bool) -> None:
    assert open_picture("It", run_lengths(size, b"\x01\x01" * runs), "", LIMITS).is_heavy(LIMITS) == is_heavy


def test_run_lengths_are_decoded() -> None:
    image = decode_image(run_lengths(20, b"\x14\x07\0\0" * 20), LIMITS)
    assert set(image.get_flattened_data()) == {7}
