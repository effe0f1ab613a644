"""The picture as SVG, without matplotlib: what `espalier inspect --plot` writes, and what the server's page shows.

Nothing in it needs a style sheet or a script. What a page wants to light up it finds by attributes: `data-segment` at boxes and their
labels, `data-tasks` at ribbons, `data-output` at the names of outputs. Classes say the paint, so that a style sheet may give it another
colour.
"""

from __future__ import annotations

from html import escape

from contract.repository import Repository
from espalier.figures.repository.layout import make_layout
from espalier.figures.repository.paints import RIBBON_ALPHA, edges, ink_on, paint_colour
from espalier.figures.repository.shapes import ON, Box, Layout, Rectangle, Ribbon, Text
from espalier.figures.style import FONTS
from espalier.figures.text import drawable

_ANCHORS = {"left": "start", "center": "middle", "right": "end"}


def tree_svg(repository: Repository) -> str:
    """Return the tree of `repository` as an SVG document. Raises DifferentInputs as `make_layout` does."""
    return to_svg(make_layout(repository))


def to_svg(layout: Layout) -> str:
    """Return the picture as an SVG document in which text stays text, the same for the same layout. The background is white."""
    width, height = _number(layout.width), _number(layout.height)
    fonts = ", ".join([*FONTS, "sans-serif"])
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{height}pt" viewBox="0 0 {width} {height}" role="img"'
        f' font-family="{fonts}">',
        f"<title>{_text(layout.title)}</title>",
        f'<rect class="paper" width="{width}" height="{height}" fill="#ffffff"/>',
        *map(_ribbon, layout.ribbons),
        *map(_rectangle, layout.rectangles),
        *map(_box, layout.boxes),
        *(_write(text, _named("segment", text.segment) if text.segment else "") for text in layout.texts),
        *(_write(text, _named("output", output)) for output, text in layout.ends.items()),
        "</svg>\n",
    ]
    return "\n".join(lines)


def _ribbon(ribbon: Ribbon) -> str:
    there, back = edges(ribbon)
    path = f"M{_points(there[:1])}C{_points(there[1:])}L{_points(back[:1])}C{_points(back[1:])}Z"
    tasks = _named("tasks", " ".join(sorted(ribbon.tasks)))
    return f'<path class="ribbon {_word(ribbon.paint)}"{tasks} d="{path}" {_fill(ribbon.paint)} fill-opacity="{RIBBON_ALPHA}"/>'


def _rectangle(rectangle: Rectangle) -> str:
    frame = ' stroke="#ffffff" stroke-width="0.5"' if min(rectangle.width, rectangle.height) > 4 else ""
    return f'<rect class="{_word(rectangle.paint)}" {_place(rectangle)} {_fill(rectangle.paint)}{frame}/>'


def _box(box: Box) -> str:
    """Return the box, and a line between its streams."""
    radius = _number(min(4.0, box.height / 2))
    segment = _named("segment", box.segment)
    parts = [f'<rect {_place(box)} rx="{radius}" {_fill(box.paint)}/>']
    stream = box.height / box.streams
    for number in range(1, box.streams if stream >= 2 else 1):
        line = Rectangle(box.x, box.y + number * stream - 0.4, box.width, 0.8, box.paint)
        parts.append(f'<rect class="between" {_place(line)} fill="#ffffff" fill-opacity="0.4"/>')
    return f'<g class="box {_word(box.paint)}"{segment}><title>{_text(box.segment)}</title>{"".join(parts)}</g>'


def _write(text: Text, named: str) -> str:
    bold = ' font-weight="bold"' if text.bold else ""
    anchor = "" if text.anchor == "left" else f' text-anchor="{_ANCHORS[text.anchor]}"'
    kind = "on" if text.paint.startswith(ON) else _word(text.paint)
    return (
        f'<text class="{kind}"{named} x="{_number(text.x)}" y="{_number(text.y)}" dy="0.35em" font-size="{_number(text.size)}"'
        f'{bold}{anchor} fill="{ink_on(text.paint)}">{_text(text.text)}</text>'
    )


def _named(what: str, name: str) -> str:
    return f' data-{what}="{_text(name)}"'


def _text(words: str) -> str:
    return escape(drawable(words))


def _word(paint: str) -> str:
    """Return the class of `paint`."""
    return paint.replace(":", "-")


def _fill(paint: str) -> str:
    return f'fill="{paint_colour(paint)}"'


def _place(rectangle: Rectangle) -> str:
    values = {"x": rectangle.x, "y": rectangle.y, "width": rectangle.width, "height": rectangle.height}
    return " ".join(f'{name}="{_number(value)}"' for name, value in values.items())


def _points(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{_number(x)} {_number(y)}" for x, y in points)


def _number(value: float) -> str:
    """Return `value` with two digits at most, and no more than it needs."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
