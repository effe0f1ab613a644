"""What a picture consists of, as data: in points, x to the right and y downwards."""

from __future__ import annotations

from dataclasses import dataclass

TASK_PAINT = "task:"  # and the number of the task


@dataclass(frozen=True)
class Rectangle:
    """A filled rectangle; `paint` is TRUNK, SHARED, INK, or a task's."""

    x: float
    y: float
    width: float
    height: float
    paint: str


@dataclass(frozen=True)
class Box(Rectangle):
    """A segment. `height` is its `cost` times the layout's scale, or the least visible height; its streams divide it evenly."""

    segment: str
    cost: int
    streams: int


@dataclass(frozen=True)
class Ribbon:
    """A tensor's way: smooth edges through (x, upper, lower) from left to right. tasks: whom it is for."""

    stations: tuple[tuple[float, float, float], ...]
    paint: str
    tasks: frozenset[str]


@dataclass(frozen=True)
class Text:
    """One line, `y` at its middle. anchor: "left", "center" or "right" of `x`. paint: INK, DIM, or "on:" and that of what is below.

    segment: whose label it is; "": nobody's.
    """

    x: float
    y: float
    text: str
    size: float
    paint: str
    bold: bool = False
    anchor: str = "left"
    segment: str = ""


@dataclass(frozen=True)
class Layout:
    """The whole picture. scale: points per unit of cost. ends: the lines of the outputs, each by the output's name."""

    width: float
    height: float
    scale: float
    boxes: tuple[Box, ...]
    ribbons: tuple[Ribbon, ...]
    rectangles: tuple[Rectangle, ...]
    texts: tuple[Text, ...]
    ends: dict[str, Text]
    title: str


INK, DIM, ON = "ink", "dim", "on:"
