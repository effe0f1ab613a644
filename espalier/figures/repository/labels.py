"""What stands at a segment: its modules, its cost and its share of the whole, in the box or above it."""

from __future__ import annotations

from dataclasses import dataclass

from contract.repository import Segment
from espalier.figures.repository.text import WEIGHTS, amount, module_range, share
from espalier.figures.text import TIMES, characters, text_width

LABEL_SIZE = 10.0
NAME_SIZE = 12.0
LINE_HEIGHT = 13.0
_PAD = 4.0
_OVERHANG = 32.0  # how far a line above its box may go beyond it


@dataclass(frozen=True)
class RunLabel:
    """One or two lines; a box that is too thin for them has them above it."""

    lines: tuple[str, ...]
    inside: bool

    @property
    def height_above(self) -> float:
        """Return the height that is needed above the box."""
        return 0.0 if self.inside else LINE_HEIGHT * len(self.lines) + 1


def label_run(segment: Segment, streams: int, cost: int, total: int, unit: str, thickness: float, width: float) -> RunLabel:
    """Return the label of `segment` in a box of `width` and `thickness` points, whose `cost` is a part of `total`."""
    each = amount(cost / streams, unit)
    counted = f"{streams} {TIMES} {each}" if streams > 1 and unit != WEIGHTS else amount(cost, unit)
    costs = f"{counted} · {share(cost, total)}"
    modules = module_range(segment, characters(width - _PAD, LABEL_SIZE))
    together = f"{modules} · {costs}"
    length = text_width(together, LABEL_SIZE)
    if thickness >= 2 * LINE_HEIGHT + 2:
        return RunLabel((modules, costs), inside=True)
    if length <= width - _PAD and thickness >= LINE_HEIGHT + 2:
        return RunLabel((together,), inside=True)
    return RunLabel((together,) if length <= width + _OVERHANG else (modules, costs), inside=False)
