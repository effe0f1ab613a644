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
from tuning.data.table_splits import ListedImage, deal_rows
from tuning.errors import BadData, BadOptions

TABLE_SUFFIXES = (".csv", ".jsonl", ".ndjson")

_SEPARATOR = re.compile("[;|]")
_NAMED = 3  # missing images that a sentence names
_Row = tuple[int, Mapping[str, Any]]  # (line in the file, from 1; its cells)


@dataclass(frozen=True)
class TableOptions:
    """How to read a table. kind: Labels, with a cell of names separated by ";" or "|" (JSON: a list), or Values, numbers.

    image: the column with the image's path, relative to the table. labels: the column of labels. values: the columns of values; empty: all
    but the image's, or of JSON the object "values" where there is one. split: the column that says train, val or test; None: "split",
    where there is one.
    """

    kind: Kind
    image: str = "image"
    labels: str = "labels"
    values: tuple[str, ...] = field(default=())
    split: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, (Labels, Values)):
            raise BadOptions(f"Tasks of the kind {self.kind.word()!r} cannot be tuned; classes, labels and values can.")
        if self.values and not isinstance(self.kind, Values):
            raise BadOptions("Columns of values are for the kind 'values'.")


def table_task(path: Path, options: TableOptions, preprocessing: Preprocessing, draw: Draw) -> TaskData:
    """Return the data that the table `path` lists, split as it says; else one image of five, drawn by the seed, is held out to test on.

    A validation split beside a test split is the fixed one, put behind the training images. Raises BadData, with the line: no table, a
    column that is not there, images that are missing or in two splits, a value that is no number, fewer than two labels, a label without
    training images, units or thresholds of another number.
    """
    rows = list(_read(path))
    if not rows:
        raise BadData(f"{path} lists no images.")
    split = _split_column(rows, options)
    listed = [_listed(path, line, cells, options, split) for line, cells in rows]
    _check_there(path, rows, listed, options)
    if split is not None and isinstance(options.kind, Values):
        rows = [(line, {name: cell for name, cell in cells.items() if name != split}) for line, cells in rows]
    labels, targets = (_labels if isinstance(options.kind, Labels) else _values)(path, rows, options)
    try:
        options.kind.check({"answers": (len(labels),)}, labels, "image")
    except KindDoesNotFit as error:
        raise BadData(f"{path} cannot be of the kind {options.kind.word()!r}: it {error}.") from error
    items = [Item(str(cells[options.image]), row, _opener(path, cells, options)) for row, (_, cells) in enumerate(rows)]
    dealt = deal_rows(path, listed, draw)
    parts = (np.concatenate([dealt.train, dealt.validation]), dealt.test)
    require_memory(sum(map(len, parts)), preprocessing)
    (learnt, read, unread), (tested, _, unread_test) = (
        _split([items[r] for r in part], targets, preprocessing) for part in parts
    )
    left_out = together(unread, unread_test)
    data = TaskData(
        path.resolve().name,
        labels,
        learnt,
        tested,
        tuple(name for names in left_out.values() for name in names),
        np.flatnonzero(read >= len(dealt.train)) if len(dealt.validation) else None,
        kind=options.kind,
    )
    _check_learnable(data)
    return replace(data, remarks=(*dealt.remarks, *sentences(left_out)))


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


def _split_column(rows: Sequence[_Row], options: TableOptions) -> str | None:
    """Return the column of splits; None where there is none, and none was asked for."""
    return options.split or ("split" if any("split" in cells for _, cells in rows) else None)


def _listed(path: Path, line: int, cells: Mapping[str, Any], options: TableOptions, split: str | None) -> ListedImage:
    name = _cell(path, line, cells, options.image)
    if not isinstance(name, str) or not name:
        raise BadData(f"{path}, line {line}: {name!r} in the column {options.image!r} is no path of an image.")
    said = None if split is None else _cell(path, line, cells, split)
    return ListedImage(line, _place(path, cells, options), "" if said is None and split is not None else said)


def _check_there(path: Path, rows: Sequence[_Row], listed: Sequence[ListedImage], options: TableOptions) -> None:
    missing = [
        (cells[options.image], line) for (line, cells), image in zip(rows, listed, strict=True) if not image.place.is_file()
    ]
    if missing:
        named = ", ".join(f"{name!r} (line {line})" for name, line in missing[:_NAMED]) + ", ..." * (len(missing) > _NAMED)
        images = "1 image is" if len(missing) == 1 else f"{len(missing)} images are"
        raise BadData(f"{path}: {images} not there: {named}; paths are relative to the table.")


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


def _split(
    items: Sequence[Item], targets: NDArray[np.float32], preprocessing: Preprocessing
) -> tuple[Split, NDArray[np.int64], LeftOut]:
    """Return the readable images, which of `items` they are, and the others."""
    images, rows, left_out = decode(items, preprocessing)
    return Split(images, targets[[items[row].target for row in rows]]), rows, left_out


def _check_learnable(data: TaskData) -> None:
    """Raise BadData for a label that no training image has, and where no test image has any label."""
    if not isinstance(data.kind, Labels):
        return
    fixed = () if data.validation is None else data.validation
    learnt = np.delete(data.train.targets, fixed, axis=0)
    lacking = [name for column, name in enumerate(data.labels) if not learnt[:, column].any()]
    if lacking:
        raise BadData(f"{data.name} has no readable training image with the label {lacking[0]!r}; add images.")
    if data.validation is not None and not data.train.targets[data.validation].any():
        raise BadData(f"{data.name} has no readable validation image with a label; add images.")
    if not data.test.targets.any():
        raise BadData(f"{data.name} leaves no readable image with a label to test on; add images.")
