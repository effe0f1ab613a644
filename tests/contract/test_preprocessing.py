"""What the server makes of an image is what the transforms make of it that networks are trained with, to the bit."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from contract.preprocessing import Preprocessing, UnknownRange, to_rgb
from serving.images.decode import ImageLimits, decode_image, make_rows, open_pictures

ORIENTATION = 0x0112  # of EXIF
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
MODES = ("RGB", "L", "RGBA", "LA", "P", "1", "CMYK")
# Sizes around powers of two and not, enlarged and reduced, up to long and narrow.
SIDES = st.integers(1, 90)


def torchvision_eval(how: Preprocessing) -> Any:
    """The transforms of torchvision's own weights: the shorter side is resized, then the centre is cropped."""
    return Compose([Resize(int(how.height / how.crop_fraction), InterpolationMode(how.interpolation)), CenterCrop(how.height)])


def timm_eval(how: Preprocessing) -> Any:
    """The transforms of timm's validation, up to where pixels become numbers."""
    return transforms_imagenet_eval(how.height, how.crop_fraction, interpolation=how.interpolation, use_prefetcher=True)


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Rough in places, smooth in others; of any mode."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    values[: height // 2] //= 4
    return Image.fromarray(values).convert(mode)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    SIDES,
    SIDES,
    st.sampled_from(MODES),
    st.sampled_from(FILTERS),
    st.sampled_from((16, 15)),
    st.sampled_from((1.0, 0.95, 0.875, 0.5)),
)
def test_pixels_are_those_of_the_transforms(width: int, height: int, mode: str, name: Any, size: int, fraction: float) -> None:
    how = Preprocessing(size, size, interpolation=name, crop_fraction=fraction)
    image = noise(width, height, mode)
    found = how(image)
    assert (found.shape, found.dtype) == ((size, size, 3), np.uint8)
    rgb = image.convert("RGB")
    np.testing.assert_array_equal(found, np.asarray(torchvision_eval(how)(rgb)))
    if name != "nearest":  # timm knows no such evaluation
        np.testing.assert_array_equal(found, timm_eval(how)(rgb).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (300, 1200), (900, 700)])
def test_photographs_are_resized_with_antialiasing_as_in_training(size: tuple[int, int], interpolation: Any) -> None:
    how = Preprocessing(224, 224, interpolation=interpolation, crop_fraction=0.875)
    image = noise(*size)
    np.testing.assert_array_equal(how(image), np.asarray(torchvision_eval(how)(image)))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_files_are_decoded_as_a_dataset_of_image_files_does(mode: str, orientation: int, subsampling: int) -> None:
    """torchvision's ImageFolder opens and converts; it, too, passes over the tag that says which way is up."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    noise(61, 47, mode).save(buffer, "JPEG", exif=exif, subsampling=subsampling, progressive=orientation == 3)
    how = Preprocessing(16, 16, crop_fraction=0.875)
    expected = torchvision_eval(how)(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
    np.testing.assert_array_equal(how(decode_image(buffer.getvalue(), ImageLimits())), np.asarray(expected))


GREYS = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(np.uint8)


@pytest.mark.parametrize(("dtype", "form"), [(np.uint16, "PNG"), (np.uint16, "TIFF"), (">u2", "TIFF"), (np.uint16, "PPM")])
def test_sixteen_bits_are_the_same_grey_in_training_and_serving(dtype: Any, form: str) -> None:
    buffer = io.BytesIO()
    fine = np.random.default_rng(1).integers(0, 256, GREYS.shape).astype(np.uint16)
    Image.fromarray((GREYS.astype(np.uint16) * 256 + fine).astype(dtype)).save(buffer, form)
    how = Preprocessing(9, 7)
    found = how(Image.open(buffer))
    for channel in range(3):
        np.testing.assert_array_equal(found[..., channel], how(Image.fromarray(GREYS))[..., 0])
    if form == "PNG":
        served = make_rows(open_pictures([("File", "", buffer.getvalue())], [how], ImageLimits()), [how])[how]
        np.testing.assert_array_equal(served[0], found)


def _tiff(values: bytes, *, bits: int, photometric: int) -> Image.Image:
    """A grey TIFF of 2 x 1 pixels, as Pillow does not write it: little-endian, one strip behind the directory."""
    tags = ((256, 3, 2), (257, 3, 1), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 122), (277, 3, 1), (278, 3, 1))
    entries = [struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in (*tags, (279, 4, len(values)))]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(entries)
    return Image.open(io.BytesIO(head.ljust(122, b"\0") + values.ljust(8, b"\0")))


@pytest.mark.parametrize(
    ("image", "greys"),
    [
        (_tiff(struct.pack("<2H", 0x7FFF, 0xFFFF), bits=16, photometric=1), [0x7F, 0xFF]),
        (_tiff(struct.pack("<2H", 0x7FFF, 0xFFFF), bits=16, photometric=0), [0x80, 0x00]),  # white is zero
        (_tiff(bytes([0x7F, 0xFF, 0xFF]), bits=12, photometric=1), [0x7F, 0xFF]),
    ],
)
def test_a_tiff_says_how_many_bits_it_has_and_which_end_is_white(image: Image.Image, greys: list[int]) -> None:
    assert to_rgb(image).get_flattened_data() == tuple((grey, grey, grey) for grey in greys)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_numbers_of_32_bits_are_refused_and_not_made_white(dtype: Any) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 300, dtype)).save(buffer, "TIFF")
    with pytest.raises(UnknownRange, match="save them with 8 or 16 bits"):
        Preprocessing(4, 4)(Image.open(buffer))


def test_transparency_is_left_out_without_a_warning() -> None:
    image = Image.new("P", (4, 4), 3)
    image.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 10, 20, 30])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=bytes([255, 255, 255, 0]))
    assert to_rgb(Image.open(buffer)).getpixel((0, 0)) == (10, 20, 30)


def test_the_image_that_is_given_stays_as_it_is() -> None:
    image = noise(16, 16)
    before = image.tobytes()
    found = Preprocessing(16, 16)(image)
    np.testing.assert_array_equal(found, np.asarray(image))
    assert not np.shares_memory(found, np.asarray(image))
    assert image.tobytes() == before
