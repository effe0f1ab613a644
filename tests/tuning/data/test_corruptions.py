from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tuning.data.corruptions import CORRUPTIONS, corrupt, parse_corruption
from tuning.errors import BadOptions


def _pictures(count: int = 3, side: int = 48) -> NDArray[np.uint8]:
    """Smooth colours with structure at several scales, as photographs have, of different heights and widths."""
    rng = np.random.default_rng(0)
    shape = (count, side, side + 8, 3)
    layers = [ndimage.gaussian_filter(rng.standard_normal(shape), (0, s, s, 0)) * s for s in (0.7, 2, 6)]
    total = sum(layers) / 6
    return np.clip(np.rint(128 + 110 * total), 0, 255).astype(np.uint8)


def _distances(name: str, images: NDArray[np.uint8]) -> list[float]:
    return [float(np.abs(corrupt(images, name, s, 0).astype(float) - images).mean()) for s in range(1, 6)]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_grows_the_distance_from_the_clean_images(name: str) -> None:
    distances = _distances(name, _pictures())
    assert distances[0] > 0.1
    assert distances == sorted(distances)
    assert distances[4] > 1.25 * distances[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_are_repeatable_image_by_image_and_leave_their_argument_alone(name: str) -> None:
    images = _pictures()
    before = images.copy()
    changed = corrupt(images, name, 3, seed=5)
    assert changed.shape == images.shape
    assert changed.dtype == np.uint8
    assert np.array_equal(images, before)
    assert np.array_equal(changed[:2], corrupt(images[:2], name, 3, seed=5))


@pytest.mark.parametrize(
    "name", ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "motion_blur", "elastic_transform"]
)
def test_what_is_random_depends_on_the_seed_and_the_image(name: str) -> None:
    images = np.repeat(_pictures(1), 2, axis=0)
    first, second = corrupt(images, name, 3, seed=0)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, corrupt(images, name, 3, seed=1)[0])


def test_noise_is_as_strong_as_said() -> None:
    grey = np.full((1, 100, 100, 3), 128, np.uint8)
    assert np.std(corrupt(grey, "gaussian_noise", 2, 0) / 255) == pytest.approx(0.12, rel=0.03)
    assert np.std(corrupt(grey, "shot_noise", 1, 0) / 255) == pytest.approx((128 / 255 / 60) ** 0.5, rel=0.03)
    assert np.mean(corrupt(grey, "impulse_noise", 5, 0) != 128) == pytest.approx(0.27, rel=0.05)


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "motion_blur"])
def test_blurs_spread_a_point_and_keep_its_light(name: str) -> None:
    point = np.zeros((1, 65, 65, 3), np.uint8)
    point[0, 31:34, 31:34] = 255
    spread = corrupt(point, name, 3, 0).astype(float)
    assert spread.sum() == pytest.approx(point.sum(), rel=0.05)
    assert (spread > 0).sum() > 1.5 * (point > 0).sum()
    light = spread[0, :, :, 0] / spread[0, :, :, 0].sum()
    centre = [float((light * axis).sum()) for axis in np.indices(light.shape)]
    assert centre == pytest.approx([32, 32], abs=0.3)


def test_grey_stays_grey_where_colour_is_not_meant() -> None:
    grey = np.repeat(_pictures()[..., :1], 3, axis=3)
    assert np.array_equal(corrupt(grey, "saturate", 5, 0), grey)
    contrast = corrupt(grey, "contrast", 5, 0)
    assert np.ptp(contrast) < 0.15 * np.ptp(grey)
    assert np.array_equal(contrast[..., 0], contrast[..., 2])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_tiny_and_empty_sets_of_images_are_no_problem(name: str) -> None:
    assert corrupt(np.full((1, 1, 1, 3), 100, np.uint8), name, 5, 0).shape == (1, 1, 1, 3)
    assert corrupt(np.empty((0, 8, 8, 3), np.uint8), name, 1, 0).shape == (0, 8, 8, 3)


def test_unknown_corruptions_and_severities_are_refused() -> None:
    assert parse_corruption("motion_blur:5") == ("motion_blur", 5)
    for text, message in {
        "rain:3": "Unknown corruption 'rain'; known are: gaussian_noise, shot_noise",
        "contrast:6": "severity of contrast must be from 1 to 5, not 6",
        "contrast:0": "from 1 to 5, not 0",
        "contrast": "'contrast' must be a name and a severity from 1 to 5, such as gaussian_noise:3",
        "contrast:-1": "must be a name and a severity",
    }.items():
        with pytest.raises(BadOptions, match=message):
            parse_corruption(text)
    with pytest.raises(BadOptions, match="not 6"):
        corrupt(_pictures(1, 8), "contrast", 6, 0)
