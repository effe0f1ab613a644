"""How charts look: one font, few colours, no frame where an axis is enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator

from espalier.figures.style import INK_COLOUR

MAIN = "#0077bb"  # what a chart is about
PALE = "#a6cbe3"
CHOSEN = "#cc3311"

# For lines that are not in _KNOWN: colours of Paul Tol's schemes that are not faint on white. Markers tell apart what colours do not.
_COLOURS = ("#ee6677", "#66ccee", "#999933", "#332288", "#44aa99", "#777777")
_MARKERS = ("d", "*", "8", "H", "1", "|")


@dataclass(frozen=True)
class Look:
    """Colour and marker of a line."""

    colour: str
    marker: str


# Methods look the same in all charts.
_KNOWN = {
    "subtuning": Look(MAIN, "o"),
    "siamese subtuning": Look("#33bbee", "D"),
    "linear probe": Look("#7b8794", "s"),
    "full finetuning": Look("#000000", "^"),
    "all blocks": Look("#aa3377", "v"),
    "lp-ft": Look("#228833", "P"),
    "surgical": Look("#ee7733", "X"),
    "auto-rgn": Look("#b8860b", "<"),
    "gradual unfreezing": Look("#882255", ">"),
    "lora": Look("#cc3311", "p"),
    "norm-only": Look("#009988", "h"),
}


def looks(names: Sequence[tuple[str, str]]) -> dict[str, Look]:
    """Return a look for each line, by name; (method, name of the line): a method's first line looks as the method always does."""
    taken: set[Look] = set()
    found = {}
    others = _other_looks()
    for method, name in names:
        look = _KNOWN.get(method)
        if look is None or look in taken:
            look = next((other for other in others if other not in taken), Look(INK_COLOUR, "."))
        taken.add(look)
        found[name] = look
    return found


def _other_looks() -> Iterator[Look]:
    """Yield every colour with a marker, then every colour with the next marker, and so on."""
    for shift in range(len(_MARKERS)):
        for index, colour in enumerate(_COLOURS):
            yield Look(colour, _MARKERS[(index + shift) % len(_MARKERS)])


def round_numbers(axis: Axis, most: int) -> None:
    """Put at most about `most` ticks at round numbers."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Return the places moved as little as it takes for neighbours to be `gap` apart; their order stays."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    groups: list[tuple[float, int]] = []  # centre and size of what stands evenly spaced
    for index in order:
        centre, size = places[index], 1
        while groups and centre - (size - 1) * gap / 2 < groups[-1][0] + (groups[-1][1] - 1) * gap / 2 + gap:
            before, count = groups.pop()
            centre, size = (before * count + centre * size) / (count + size), count + size
        groups.append((centre, size))
    spread = [centre + (number - (size - 1) / 2) * gap for centre, size in groups for number in range(size)]
    result = [0.0] * len(places)
    for index, place in zip(order, spread, strict=True):
        result[index] = place
    return result
