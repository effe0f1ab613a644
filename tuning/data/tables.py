"""Images listed in a table, with labels or values: a CSV with a header, or JSON lines."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.kinds.kind import Kind, KindDoesNotFit
from contract.kinds.labels import Labels
from contract.kinds.values import Values
from contract.preprocessing import Preprocessing
from tuning.data.decode import Item, decode, require_memory
from tuning.data.labelled import Draw, Split, TaskData
from tuning.data.left_out import LeftOut, sentences, together
from tuning.errors import BadData, BadOptions

TABLE_SUFFIXES = (".csv", ".jsonl", ".ndjson")

_SEPARATOR = re.compile("[;|]")
_TEST_SHARE = 5  # of so many images one is held out
_Row = tuple[int, Mapping[str, Any]]  # (line in the file, from 1; its cells)


@dataclass(frozen=True)
class TableOptions:
    """How to read a table. kind: Labels, with a cell of names separated by ";" or "|" (JSON: a list), or Values, numbers.

    image: the column with the image's path, relative to the table. labels: the column of labels. values: the columns of values; empty: all
    but the image's, or of JSON the object "values" where there is one.
    """

    kind: Kind
    image: str = "image"
    labels: str = "labels"
    values: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not isinstance(self.kind, (Labels, Values)):
            raise BadOptions(f"Tasks of the kind {self.kind.word()!r} cannot be tuned; classes, labels and values can.")
        if self.values and not isinstance(self.kind, Values):
            raise BadOptions("Columns of values are for the kind 'values'.")


def table_task(path: Path, options: TableOptions, preprocessing: Preprocessing, draw: Draw) -> TaskData:
    """Return the data that the table `path` lists; one image of five, drawn by the seed, is held out to test on.

    Raises BadData, with the line: no table, a column that is not there, an image that is missing, a value that is no number, fewer
    than two labels, a label without training images, units or thresholds of another number.
    """
    rows = list(_read(path))
    if not rows:
        raise BadData(f"{path} lists no images.")
    for line, cells in rows:
        _check_image(path, line, cells, options)
    labels, targets = (_labels if isinstance(options.kind, Labels) else _values)(path, rows, options)
    try:
        options.kind.check({"answers": (len(labels),)}, labels, "image")
    except KindDoesNotFit as error:
        raise BadData(f"{path} cannot be of the kind {options.kind.word()!r}: it {error}.") from error
    items = [Item(str(cells[options.image]), row, _opener(path, cells, options)) for row, (_, cells) in enumerate(rows)]
    train, test = _deal(len(items), draw)
    require_memory(len(train) + len(test), preprocessing)
    (learnt, unread), (tested, unread_test) = (_split([items[r] for r in part], targets, preprocessing) for part in (train, test))
    left_out = together(unread, unread_test)
    data = TaskData(
        path.resolve().name,
        labels,
        learnt,
        tested,
        tuple(name for names in left_out.values() for name in names),
        kind=options.kind,
    )
    _check_learnable(data)
    held = "One image of five is held out to test on, chosen by the seed."
    return replace(data, remarks=(held, *sentences(left_out)))


def _read(path: Path) -> Iterator[_Row]:
    if path.suffix.lower() not in TABLE_SUFFIXES or not path.is_file():
        raise BadData(f"{path} is no table; labels and values come in a file that ends in {', '.join(TABLE_SUFFIXES)}.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from (_read_csv(path, file) if path.suffix.lower() == ".csv" else _read_lines(path, file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{path} cannot be read as a table in UTF-8 ({error}).") from error


def _read_csv(path: Path, file: Any) -> Iterator[_Row]:
    reader = csv.DictReader(file)
    names = reader.fieldnames or ()
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadData(f"{path} has the column {min(twice)!r} twice.")
    for cells in reader:
        if None in cells or None in cells.values():
            raise BadData(f"{path}, line {reader.line_num}: there are not {len(names)} cells, as in the header.")
        yield reader.line_num, cells


def _read_lines(path: Path, file: Any) -> Iterator[_Row]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            cells = json.loads(text)
        except ValueError as error:
            raise BadData(f"{path}, line {line}: it is no JSON.") from error
        if not isinstance(cells, dict):
            raise BadData(f"{path}, line {line}: it is no JSON object.")
        yield line, cells


def _cell(path: Path, line: int, cells: Mapping[str, Any], column: str) -> Any:
    if column not in cells:
        raise BadData(f"{path}, line {line}: there is no column {column!r}; there are {', '.join(map(repr, cells))}.")
    return cells[column]


def _place(path: Path, cells: Mapping[str, Any], options: TableOptions) -> Path:
    return path.parent / str(cells[options.image])


def _opener(path: Path, cells: Mapping[str, Any], options: TableOptions) -> Any:
    return partial(Image.open, _place(path, cells, options))


def _check_image(path: Path, line: int, cells: Mapping[str, Any], options: TableOptions) -> None:
    name = _cell(path, line, cells, options.image)
    if not isinstance(name, str) or not name or not _place(path, cells, options).is_file():
        raise BadData(f"{path}, line {line}: the image {name!r} is not there; paths are relative to the table.")


def _labels(path: Path, rows: Sequence[_Row], options: TableOptions) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    found = [_names(path, line, _cell(path, line, cells, options.labels)) for line, cells in rows]
    labels = tuple(sorted({name for names in found for name in names}))
    if len(labels) < 2:
        only = f"only {labels[0]!r}" if labels else "none"
        raise BadData(f"{path} must have at least 2 labels in the column {options.labels!r}; it has {only}.")
    return labels, np.array([[name in names for name in labels] for names in found], dtype=np.float32)


def _names(path: Path, line: int, cell: Any) -> frozenset[str]:
    names = _SEPARATOR.split(cell) if isinstance(cell, str) else cell
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadData(
            f"{path}, line {line}: {cell!r} are no labels; give a list of names, or a text of names separated by ';' or '|'."
        )
    return frozenset(name.strip() for name in names if name.strip())


def _values(path: Path, rows: Sequence[_Row], options: TableOptions) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    cells = [(line, _flat(path, line, row)) for line, row in rows]
    columns = options.values or tuple(name for name in cells[0][1] if name != options.image)
    if not columns:
        raise BadData(f"{path} has no column of values beside {options.image!r}.")
    known = {options.image, *columns}
    for line, row in () if options.values else cells:
        if more := set(row) - known:
            raise BadData(f"{path}, line {line}: {min(more)!r} is in no line before; each line has the same values.")
    return columns, np.array([[_number(path, line, row, name) for name in columns] for line, row in cells], dtype=np.float32)


def _flat(path: Path, line: int, cells: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the cells with those of the object "values" among them."""
    inner = cells.get("values")
    if not isinstance(inner, dict):
        return cells
    if twice := set(cells) & set(inner):
        raise BadData(f"{path}, line {line}: {min(twice)!r} is there twice.")
    return {**{name: cell for name, cell in cells.items() if name != "values"}, **inner}


def _number(path: Path, line: int, cells: Mapping[str, Any], column: str) -> float:
    cell = _cell(path, line, cells, column)
    try:
        number = math.nan if isinstance(cell, bool) else float(np.float32(cell))
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadData(f"{path}, line {line}: {cell!r} in the column {column!r} is no finite number.")
    return number


def _deal(count: int, draw: Draw) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to learn from and to test on."""
    order = np.random.default_rng(draw.seed).permutation(count)
    held = max(1, round(count / _TEST_SHARE))
    parts = order[held:], order[:held]
    for part, wanted, what in zip(parts, (draw.train_images, draw.test_images), ("training", "test"), strict=True):
        if wanted is not None and wanted > len(part):
            raise BadData(f"{wanted} {what} images were asked for; there are {len(part)}.")
    return np.sort(parts[0][: draw.train_images]), np.sort(parts[1][: draw.test_images])


def _split(items: Sequence[Item], targets: NDArray[np.float32], preprocessing: Preprocessing) -> tuple[Split, LeftOut]:
    images, rows, left_out = decode(items, preprocessing)
    return Split(images, targets[[items[row].target for row in rows]]), left_out


def _check_learnable(data: TaskData) -> None:
    """Raise BadData for a label that no training image has, and where no test image has any label."""
    if not isinstance(data.kind, Labels):
        return
    lacking = [name for column, name in enumerate(data.labels) if not data.train.targets[:, column].any()]
    if lacking:
        raise BadData(f"{data.name} has no readable training image with the label {lacking[0]!r}; add images.")
    if not data.test.targets.any():
        raise BadData(f"{data.name} leaves no readable image with a label to test on; add images.")
