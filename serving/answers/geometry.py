"""Where a network's input lies in the picture that was sent: the other way round what `contract.preprocessing` does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.preprocessing import Preprocessing


@dataclass(frozen=True)
class Frame:
    """A picture of `width` x `height` pixels as a network saw it: resized by `scale_x`, `scale_y`, and cropped from `left`, `top`.

    seen_width, seen_height: of the network's input.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float
    left: int
    top: int
    seen_width: int
    seen_height: int

    def to_picture(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return corners (n, 4), x1, y1, x2, y2 in pixels of the input, in pixels of the picture: cut where either of them ends."""
        seen = np.clip(boxes, 0, [self.seen_width, self.seen_height] * 2)
        moved = (seen + [self.left, self.top] * 2) / ([self.scale_x, self.scale_y] * 2)
        return np.asarray(np.clip(moved, 0, [self.width, self.height] * 2))

    def spread(self, classes: NDArray[np.uint8], unknown: int) -> NDArray[np.uint8]:
        """Return `classes`, one for each pixel of the input, for each pixel of the picture; `unknown` where the input does not reach."""
        columns = _nearest(self.width, self.scale_x, self.left)
        rows = _nearest(self.height, self.scale_y, self.top)
        inside_x, inside_y = (columns >= 0) & (columns < self.seen_width), (rows >= 0) & (rows < self.seen_height)
        found = np.full((self.height, self.width), unknown, np.uint8)
        found[np.ix_(inside_y, inside_x)] = classes[np.ix_(rows[inside_y], columns[inside_x])]
        return found


def frame_of(width: int, height: int, how: Preprocessing) -> Frame:
    """Return where in a picture of that size `how` takes the network's input from."""
    wide, high = how.resized_size(width, height)
    left, top = how.corner(wide, high)
    return Frame(width, height, wide / width, high / height, left, top, how.width, how.height)


def _nearest(size: int, scale: float, offset: int) -> NDArray[np.intp]:
    """Return for each pixel of the picture which of the input its centre lies in."""
    return np.asarray(np.floor((np.arange(size) + 0.5) * scale - offset), np.intp)
