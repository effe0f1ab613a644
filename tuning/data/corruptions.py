"""Input shifts: images made noisier, more blurred, darker, ... in five severities.

In the style of ImageNet-C and CIFAR-10-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), with the same names, but written anew:
neither bit-equal to the published images nor of the same strength, so numbers cannot be compared with published ones. Lengths are
shares of the image's shorter side, as what counts is what happens to the picture; below 32 pixels blurs do next to nothing.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, signal

from tuning.data.decode import for_each_row
from tuning.errors import BadOptions

_SEVERITIES = 5

_Picture = NDArray[np.float64]  # (height, width, 3), 0 to 1
_Corruption = Callable[
    [_Picture, int, np.random.Generator], _Picture
]  # (picture, severity - 1, generator); the result may leave 0 to 1


def corrupt(images: NDArray[np.uint8], name: str, severity: int, seed: int) -> NDArray[np.uint8]:
    """Return `images` (uint8, (n, height, width, 3)) changed by the corruption `name` of CORRUPTIONS; the argument is left alone.

    severity: 1 (slight) to 5. Image k is disturbed by the same random numbers whatever n and the severity.
    Raises BadOptions for an unknown name or severity.
    """
    change = _find(name, severity)
    stream = zlib.crc32(name.encode())  # two corruptions of one seed have nothing in common
    result = np.empty_like(images)

    def corrupt_one(row: int) -> None:
        rng = np.random.default_rng((seed, stream, row))
        changed = change(images[row] / 255.0, severity - 1, rng)
        result[row] = np.rint(np.clip(changed, 0.0, 1.0) * 255)

    for_each_row(corrupt_one, len(images))
    return result


def parse_corruption(text: str) -> tuple[str, int]:
    """Return (name, severity) of "gaussian_noise:3". Raises BadOptions."""
    name, _, severity = text.partition(":")
    if not (severity.isascii() and severity.isdigit()):
        raise BadOptions(f"Corruption {text!r} must be a name and a severity from 1 to {_SEVERITIES}, such as gaussian_noise:3.")
    _find(name, int(severity))
    return name, int(severity)


def _find(name: str, severity: int) -> _Corruption:
    if name not in CORRUPTIONS:
        raise BadOptions(f"Unknown corruption {name!r}; known are: {', '.join(CORRUPTIONS)}.")
    if not 1 <= severity <= _SEVERITIES:
        raise BadOptions(f"The severity of {name} must be from 1 to {_SEVERITIES}, not {severity}.")
    return CORRUPTIONS[name]


def _gaussian_noise(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    return picture + (0.08, 0.12, 0.18, 0.26, 0.38)[level] * rng.standard_normal(picture.shape)


def _shot_noise(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    """Photon counting: a Poisson count per channel, of this many photons at full brightness."""
    photons = (60.0, 25.0, 12.0, 5.0, 3.0)[level]
    return np.asarray(rng.poisson(picture * photons) / photons)


def _impulse_noise(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    """Salt and pepper: this share of all values becomes 0 or 1."""
    hit = rng.random(picture.shape) < (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    return np.where(hit, rng.integers(0, 2, picture.shape), picture)


def _speckle_noise(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    return picture * (1 + (0.15, 0.2, 0.35, 0.45, 0.6)[level] * rng.standard_normal(picture.shape))


def _gaussian_blur(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    sigma = (0.01, 0.015, 0.02, 0.03, 0.04)[level] * _side(picture)
    return np.asarray(ndimage.gaussian_filter(picture, (sigma, sigma, 0), mode="reflect"))


def _defocus_blur(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    """Every point becomes a disc."""
    radius = (0.02, 0.028, 0.036, 0.045, 0.055)[level] * _side(picture)
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _convolve(picture, np.clip(radius + 0.5 - np.hypot(y, x), 0, 1))  # with a soft edge of one pixel


def _motion_blur(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    """Every point becomes a line, in a random direction within 45 degrees of the horizontal."""
    length = (0.04, 0.06, 0.08, 0.11, 0.15)[level] * _side(picture)
    angle = rng.uniform(-math.pi / 4, math.pi / 4)
    reach = math.ceil(length / 2)
    steps = np.linspace(-length / 2, length / 2, 8 * reach + 1)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for x, y in zip(reach + steps * math.cos(angle), reach + steps * math.sin(angle), strict=True):
        left, top = math.floor(x), math.floor(y)
        for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
            for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
                if share_x * share_y > 0:
                    kernel[row, column] += share_x * share_y
    return _convolve(picture, kernel)


def _zoom_blur(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    """The mean of ever larger views of the picture's middle."""
    largest = (1.06, 1.11, 1.16, 1.22, 1.3)[level]
    image = _to_image(picture)
    width, height = image.size
    total = np.zeros_like(picture)
    zooms = np.linspace(1.0, largest, 10)
    for zoom in zooms:
        cut_x, cut_y = (width - width / zoom) / 2, (height - height / zoom) / 2
        total += np.asarray(
            image.resize((width, height), Image.Resampling.BILINEAR, box=(cut_x, cut_y, width - cut_x, height - cut_y))
        )
    return total / (255 * len(zooms))


def _brightness(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    return picture + (0.1, 0.2, 0.3, 0.4, 0.5)[level]


def _contrast(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    mean = picture.mean(axis=(0, 1))
    return np.asarray(mean + (0.4, 0.3, 0.2, 0.1, 0.05)[level] * (picture - mean))


def _saturate(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    """Colours stronger by a factor; grey pictures stay as they are."""
    grey = picture @ np.array([[0.299], [0.587], [0.114]])
    return np.asarray(grey + (1.5, 2.0, 3.0, 5.0, 10.0)[level] * (picture - grey))


def _pixelate(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    image, share = _to_image(picture), (0.6, 0.5, 0.4, 0.3, 0.25)[level]
    small = (max(1, int(image.width * share)), max(1, int(image.height * share)))
    return np.asarray(image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)) / 255


def _jpeg_compression(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    buffer = io.BytesIO()
    _to_image(picture).save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[level])
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB")) / 255


def _elastic_transform(picture: _Picture, level: int, rng: np.random.Generator) -> _Picture:
    """Pixels move along a smooth random field (Simard et al. 2003); given is the longest way, as a share of the side."""
    side, longest = _side(picture), (0.01, 0.02, 0.03, 0.045, 0.06)[level]
    noise = rng.uniform(-1, 1, (2, *picture.shape[:2]))
    field = ndimage.gaussian_filter(noise, (0, 0.06 * side, 0.06 * side), mode="reflect")
    field *= longest * side / max(float(np.hypot(*field).max()), 1e-12)
    places = np.indices(picture.shape[:2]) + field
    channels = [ndimage.map_coordinates(picture[..., channel], places, order=1, mode="reflect") for channel in range(3)]
    return np.stack(channels, axis=-1)


def _convolve(picture: _Picture, kernel: NDArray[np.float64]) -> _Picture:
    """Return `picture` with every point spread as `kernel` (of odd sides) says; beyond the edge the picture is reflected."""
    reach_y, reach_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(picture, ((reach_y, reach_y), (reach_x, reach_x), (0, 0)), mode="symmetric")
    return np.asarray(signal.fftconvolve(padded, (kernel / kernel.sum())[..., None], mode="valid", axes=(0, 1)))


def _side(picture: _Picture) -> int:
    return int(min(picture.shape[:2]))


def _to_image(picture: _Picture) -> Image.Image:
    return Image.fromarray(np.rint(picture * 255).astype(np.uint8))


CORRUPTIONS: Mapping[str, _Corruption] = MappingProxyType(
    {
        "gaussian_noise": _gaussian_noise,
        "shot_noise": _shot_noise,
        "impulse_noise": _impulse_noise,
        "speckle_noise": _speckle_noise,
        "gaussian_blur": _gaussian_blur,
        "defocus_blur": _defocus_blur,
        "motion_blur": _motion_blur,
        "zoom_blur": _zoom_blur,
        "brightness": _brightness,
        "contrast": _contrast,
        "saturate": _saturate,
        "pixelate": _pixelate,
        "jpeg_compression": _jpeg_compression,
        "elastic_transform": _elastic_transform,
    }
)
