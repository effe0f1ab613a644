"""What stands around the tree: the headline, two bars that compare shared with separate, and the legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, log10

from contract.costs import separate_cost, shared_cost
from contract.repository import Repository
from espalier.figures.repository.flow import OWN, SHARED, TRUNK, Flow, role
from espalier.figures.repository.shapes import DIM, INK, TASK_PAINT, Rectangle, Text
from espalier.figures.repository.sizes import MIN_THICKNESS, run_cost
from espalier.figures.repository.text import LABEL_SIZE, MACS, WEIGHTS, amount, times_less
from espalier.figures.text import text_width

MARGIN = 24.0
_TITLE_SIZE = 18.0
_BAR_HEIGHT = 15.0
_BAR_LENGTH = 520.0
_KEY_THICKNESS = 34.0  # of the scale's example, at most
_Pieces = list[tuple[float, str]]


@dataclass(frozen=True)
class Frame:
    """The canvas' size, where the tree begins, and what stands around it."""

    width: float
    height: float
    top: float
    title: str
    rectangles: tuple[Rectangle, ...]
    texts: tuple[Text, ...]


@dataclass(frozen=True)
class Subject:
    """What is drawn, in which unit of cost, at how many points per unit, and in which paint the own segments of each task are."""

    repository: Repository
    flow: Flow
    unit: str
    scale: float
    task_paint: Callable[[str], str]


def make_frame(subject: Subject, used: Sequence[str], thin: bool, right: float, height: float) -> Frame:
    """Return the frame of a tree of `height` that ends at `right`; `used`: the paints of its boxes; `thin`: some are below scale."""
    title = headline(subject.repository)
    bars, bar_texts, below = _bars(subject)
    top = below + 22
    key, key_texts = _legend(subject, used, thin, top + height + 22)
    what = "the MACs of one row, times its streams" if subject.unit == MACS else "the bytes of its weights"
    texts = (
        Text(MARGIN, 30, title, _TITLE_SIZE, INK, bold=True),
        Text(MARGIN, 52, f"One request for all tasks, from left to right. How thick a segment is drawn: {what}.", 11, DIM),
        *bar_texts,
        *key_texts,
    )
    width = max(right, *(text.x + text_width(text.text, text.size, text.bold) for text in texts)) + MARGIN
    return Frame(width, top + height + 22 + _KEY_THICKNESS + 20, top, title, (*bars, *key), texts)


def headline(repository: Repository) -> str:
    """Return what all tasks cost, shared instead of separate."""
    names = list(repository.tasks)
    shared, separate = shared_cost(repository, names), separate_cost(repository, names)
    sums = [(shared.macs, separate.macs, MACS), (shared.weight_bytes, separate.weight_bytes, WEIGHTS)]
    if len(names) == 1:
        return "1 task: " + ", ".join(f"{amount(ours, unit)}{' of weights' * (unit == WEIGHTS)}" for ours, _, unit in sums)
    parts = (
        f"{amount(ours, unit)} instead of {amount(theirs, unit)} ({times_less(ours, theirs)})"
        for ours, theirs, unit in sums
        if theirs
    )
    return f"{len(names)} tasks: {', '.join(parts)}".removesuffix(": ")


def _bars(subject: Subject) -> tuple[list[Rectangle], list[Text], float]:
    """Return a bar of what is shared and one of separate networks, to one scale, and where they end; nothing for a single task."""
    names, unit, task_paint = list(subject.repository.tasks), subject.unit, subject.task_paint
    if len(names) == 1:
        return [], [], 58.0
    network = {
        name: separate_cost(subject.repository, [name]) for name in sorted(names, key=lambda name: _number(task_paint(name)))
    }
    separate: _Pieces = [(cost.macs if unit == MACS else cost.weight_bytes, task_paint(name)) for name, cost in network.items()]
    rows = {"shared": _shared_pieces(subject), f"{len(names)} networks": separate}
    start = MARGIN + max(text_width(words, LABEL_SIZE) for words in rows) + 8
    longest = max(sum(cost for cost, _ in pieces) for pieces in rows.values()) or 1.0
    bars, texts, y = [], [], 70.0
    for words, pieces in rows.items():
        x = start
        for cost, paint in pieces:
            bars.append(Rectangle(x, y, cost * _BAR_LENGTH / longest, _BAR_HEIGHT, paint))
            x += cost * _BAR_LENGTH / longest
        texts.append(Text(MARGIN, y + _BAR_HEIGHT / 2, words, LABEL_SIZE, INK))
        texts.append(Text(x + 6, y + _BAR_HEIGHT / 2, amount(sum(cost for cost, _ in pieces), unit), LABEL_SIZE, INK))
        y += _BAR_HEIGHT + 5
    return bars, texts, y


def _shared_pieces(subject: Subject) -> _Pieces:
    """Return the costs of trunk, shared segments and every task's own ones."""
    unit, task_paint, segments = subject.unit, subject.task_paint, subject.repository.segments
    sums = dict.fromkeys((TRUNK, SHARED, *sorted(map(task_paint, subject.repository.tasks), key=_number)), 0.0)
    counted = set()
    for run in subject.flow.runs:
        if unit == MACS or run.segment not in counted:
            sums[task_paint(min(run.tasks)) if role(run) == OWN else role(run)] += run_cost(run, segments, unit)
        counted.add(run.segment)
    return [(cost, paint) for paint, cost in sums.items() if cost]


def _legend(subject: Subject, used: Sequence[str], thin: bool, y: float) -> tuple[list[Rectangle], list[Text]]:
    """Return what the colours mean and an example of the scale."""
    own = sorted({paint for paint in used if paint.startswith(TASK_PAINT)}, key=_number)[:3]
    entries = [([TRUNK], "trunk: runs once")] if TRUNK in used else []
    entries += [([SHARED], "shared: one model, its streams in one batch")] if SHARED in used else []
    entries += [(own, "a task's own")] if own else []
    middle, x = y + _KEY_THICKNESS / 2, MARGIN
    rectangles, texts = [], []
    for paints, words in entries:
        for paint in paints:
            rectangles.append(Rectangle(x, middle - 5, 10, 10, paint))
            x += 12
        texts.append(Text(x + 3, middle, words, LABEL_SIZE, INK))
        x += text_width(words, LABEL_SIZE) + 24
    unit, scale = subject.unit, subject.scale
    if scale > 0:
        key = _round_down(_KEY_THICKNESS / scale)
        rectangles.append(Rectangle(x, middle - key * scale / 2, 6, key * scale, INK))
        least = f" (what is below {amount(MIN_THICKNESS / scale, unit)} is drawn thicker, to be seen)"
        words = amount(key, unit) + least * thin
        texts.append(Text(x + 12, middle, words, LABEL_SIZE, INK))
    return rectangles, texts


def _round_down(value: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20, ... that is not above `value`, which is positive."""
    power = 10.0 ** floor(log10(value))
    return max(step * power for step in (1, 2, 5) if step * power <= value)


def _number(task_paint: str) -> int:
    return int(task_paint.removeprefix(TASK_PAINT))
