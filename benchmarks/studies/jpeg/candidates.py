"""Ways from the bytes of a JPEG file to pixels, and from pixels to a network's input, beside the one that is used; in one thread.

Ways of packages that are not installed are left out: simplejpeg and opencv-python-headless are no dependencies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.preprocessing import Preprocessing
from serving.images.decode import ImageLimits, decode_image

_Pixels = NDArray[np.uint8]  # (height, width, 3)
USED = "used"
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def decoders(data: bytes) -> Mapping[str, Callable[[], Image.Image]]:
    """Return functions from the JPEG file `data` to a picture that Pillow can resize; the first is the one that is used."""
    found: dict[str, Callable[[], Image.Image]] = {USED: lambda: decode_image(data, ImageLimits())}
    if find_spec("simplejpeg"):
        decode = import_module("simplejpeg").decode_jpeg
        found["simplejpeg"] = lambda: Image.fromarray(decode(data))
        found["simplejpeg, fast"] = lambda: Image.fromarray(decode(data, fastdct=True, fastupsample=True))
    if find_spec("cv2"):
        cv2 = import_module("cv2")
        cv2.setNumThreads(1)
        found["OpenCV"] = lambda: Image.fromarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))
    return found


def resizers(image: Image.Image, how: Preprocessing) -> Mapping[str, Callable[[], _Pixels]]:
    """Return functions from a decoded RGB `image` to the input that `how` asks for; the first is the one that is used."""
    fitting = _Fitting(image, how)
    found: dict[str, Callable[[], _Pixels]] = {
        USED: lambda: how(image),
        "Pillow, resize(box=...)": fitting.boxed,
        "Pillow, width, crop, height": fitting.by_axis,
        "Pillow, reducing_gap=2": lambda: fitting.crop(image.resize(fitting.size, fitting.filter, reducing_gap=2.0)),
    }
    if find_spec("cv2"):
        found["OpenCV, INTER_AREA"] = lambda: fitting.opencv("INTER_AREA")
        found["OpenCV, INTER_LINEAR"] = lambda: fitting.opencv("INTER_LINEAR")
    if find_spec("torchvision") and how.interpolation in ("bilinear", "bicubic"):
        found["torchvision, uint8, antialiased"] = fitting.torchvision
    return found


class _Fitting:
    """Resizes and crops one image as a preprocessing says, in other ways than its own."""

    def __init__(self, image: Image.Image, how: Preprocessing) -> None:
        self._image = image
        self._how = how
        self.filter = _FILTERS[how.interpolation]
        self.size = how.resized_size(*image.size)
        self.left, self.top = round((self.size[0] - how.width) / 2), round((self.size[1] - how.height) / 2)
        self._frame = (self.left, self.top, self.left + how.width, self.top + how.height)

    def crop(self, image: Image.Image) -> _Pixels:
        return np.asarray(image.crop(self._frame))

    def boxed(self) -> _Pixels:
        scales = (self._image.width / self.size[0], self._image.height / self.size[1]) * 2
        left, top, right, bottom = (edge * scale for edge, scale in zip(self._frame, scales, strict=True))
        size = (self._how.width, self._how.height)
        return np.asarray(self._image.resize(size, self.filter, box=(left, top, right, bottom)))

    def by_axis(self) -> _Pixels:
        columns = self._image.resize((self.size[0], self._image.height), self.filter)
        columns = columns.crop((self.left, 0, self.left + self._how.width, columns.height))
        rows = columns.resize((self._how.width, self.size[1]), self.filter)
        return np.asarray(rows.crop((0, self.top, self._how.width, self.top + self._how.height)))

    def opencv(self, interpolation: str) -> _Pixels:
        cv2 = import_module("cv2")
        resized = cv2.resize(np.asarray(self._image), self.size, interpolation=getattr(cv2, interpolation))
        left, top, right, bottom = self._frame
        return np.asarray(resized[top:bottom, left:right])

    def torchvision(self) -> _Pixels:
        import torch
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        torch.set_num_threads(1)
        tensor = torch.from_numpy(np.array(self._image)).permute(2, 0, 1)
        resized = functional.resize(tensor, list(self.size[::-1]), InterpolationMode(self._how.interpolation), antialias=True)
        left, top, right, bottom = self._frame
        return np.asarray(resized[:, top:bottom, left:right].permute(1, 2, 0).numpy())
