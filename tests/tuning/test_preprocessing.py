"""What the server makes of an image is what the transforms make of it that networks are trained with, to the bit."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from serving.preprocessing import Preprocessing
from serving.protocol.images import ImageLimits, decode_image

ORIENTATION = 0x0112  # of EXIF
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
MODES = ("RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "I;16")
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
    image = Image.fromarray(values)
    return image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)


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


def test_the_image_that_is_given_stays_as_it_is() -> None:
    image = noise(16, 16)
    before = image.tobytes()
    found = Preprocessing(16, 16)(image)
    np.testing.assert_array_equal(found, np.asarray(image))
    assert not np.shares_memory(found, np.asarray(image))
    assert image.tobytes() == before
