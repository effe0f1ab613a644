"""Augmented views."""

import numpy as np
from numpy.typing import NDArray


def draw_views(images: NDArray[np.uint8], count: int, seed: int, flip: bool = False) -> NDArray[np.uint8]:
    """Return views."""
    return np.stack([np.roll(images, i, axis=2) for i in range(count)])
