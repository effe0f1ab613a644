"""A file of answers that grows, a line for each image: CSV or JSON lines. It is gone on with where it was left."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import InvalidRequest
from contract.kinds.classes import Classes
from contract.repository.model import Task
from serving.answers.answer import About
from serving.answers.readers import AnyAnswer

_BESIDE = {"logits", "scores", "preprocessing"}
_ERRORS = "surrogateescape"  # names of files need not be UTF-8


@dataclass(frozen=True)
class FolderRow:
    """What is answered about one file of a folder. file: its path in the folder, with "/".

    tasks: the answers by name; none where `error` says in a sentence why the file could not be asked about.
    """

    file: str
    tasks: Mapping[str, AnyAnswer]
    error: str = ""


class AnswersFile:
    """The file `path`, of answers of `tasks`. about: how answers are wanted.

    In a CSV a task of classes has two columns, its name and "NAME score", the best class alone unless more is asked for; one that
    gives a single number has that; all else is JSON in one cell. Raises InvalidRequest for a file that holds anything else.
    """

    def __init__(self, path: str | Path, tasks: Sequence[Task], about: About) -> None:
        self._path = Path(path)
        self._names = [task.name for task in tasks]
        self._ranked = {
            task.name for task in tasks if isinstance(task.answers, Classes) and about.top_k in (None, 1) and not about.show
        }
        if self._path.suffix not in (".csv", ".jsonl"):
            raise InvalidRequest(f"{path} says not how answers are written; give it a name that ends in .csv or .jsonl.")
        self._is_csv = self._path.suffix == ".csv"
        self.files = self._continue()

    def write(self, rows: Iterable[FolderRow]) -> None:
        """Add `rows`, which are on the disk then. Raises InvalidRequest."""
        self._add([self._csv_row(row) if self._is_csv else _json_row(row) for row in rows])

    def _continue(self) -> frozenset[str]:
        """Cut off a line that is half written, begin a file that is not there, and return which files have answers."""
        try:
            text = self._path.read_bytes().decode(errors=_ERRORS) if self._path.exists() else ""
        except OSError as error:
            raise InvalidRequest(f"{self._path} cannot be read: {error.strerror}.") from error
        kept = _whole_lines(text, self._is_csv)
        begin = self._header() if self._is_csv else '{"file": '
        if text and not kept and not begin.startswith(text[: len(begin)]):
            raise self._other()
        files = self._csv_files(kept) if self._is_csv else self._json_files(kept)
        if len(kept) < len(text):
            with self._path.open("r+b") as file:
                file.truncate(len(kept.encode(errors=_ERRORS)))
        self._add([self._header()] if self._is_csv and not kept else [])
        return files

    def _add(self, lines: Sequence[str]) -> None:
        try:
            with self._path.open("ab") as file:
                file.write("".join(lines).encode(errors=_ERRORS))
        except OSError as error:
            raise InvalidRequest(f"{self._path} cannot be written: {error.strerror}.") from error

    def _header(self) -> str:
        columns = (column for name in self._names for column in ((name, f"{name} score") if name in self._ranked else (name,)))
        return _csv_line(["file", *columns, "error"])

    def _csv_row(self, row: FolderRow) -> str:
        cells: list[object] = []
        for name in self._names:
            if name in self._ranked:
                first = row.tasks[name].model_dump()["labels"][0] if row.tasks else {"label": "", "score": ""}
                cells += [first["label"], first["score"]]
            else:
                cells.append(_cell(row.tasks[name]) if row.tasks else "")
        return _csv_line([row.file, *cells, row.error])

    def _csv_files(self, text: str) -> frozenset[str]:
        if text and not text.startswith(self._header()):
            raise self._other()
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except csv.Error:
            raise self._other() from None
        if any(len(row) != len(rows[0]) for row in rows):
            raise self._other()
        return frozenset(row[0] for row in rows[1:])

    def _json_files(self, text: str) -> frozenset[str]:
        files = set()
        for line in text.split("\n")[:-1]:
            try:
                record = json.loads(line)
                file, tasks, error = record["file"], record["tasks"], record["error"]
            except (ValueError, KeyError, TypeError):
                raise self._other() from None
            if not error and [*tasks] != self._names:
                raise self._other()
            files.add(file)
        return frozenset(files)

    def _other(self) -> InvalidRequest:
        return InvalidRequest(
            f"{self._path} is there and holds something else than answers of {', '.join(self._names)} asked for in this way; "
            "name another file."
        )


def _whole_lines(text: str, is_csv: bool) -> str:
    """Return `text` up to the end of its last whole line. A line of CSV goes on in quotes."""
    end = text.rfind("\n") + 1
    while is_csv and end and text.count('"', 0, end) % 2:
        end = text.rfind("\n", 0, end - 1) + 1
    return text[:end]


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _json_row(row: FolderRow) -> str:
    tasks = {name: _plain(answer) for name, answer in row.tasks.items()}
    return json.dumps({"file": row.file, "tasks": tasks, "error": row.error}) + "\n"


def _plain(answer: AnyAnswer) -> Any:
    return json.loads(answer.model_dump_json())  # numbers that are not finite become null


def _cell(answer: AnyAnswer) -> object:
    plain = _plain(answer)
    if plain["kind"] == "values" and len(plain["values"]) == 1 and not plain.keys() & _BESIDE:
        return plain["values"][0]["value"]
    return json.dumps(plain)
