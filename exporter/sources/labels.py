"""The names of a task's classes, from a text file beside its model."""

from __future__ import annotations

from pathlib import Path

from exporter.errors import BadModel

SUFFIX = ".labels.txt"


def read_labels(task: str, model: Path) -> tuple[str, ...]:
    """Return the labels in TASK.labels.txt or MODEL.labels.txt beside `model` (without its own suffix), () when there is neither.

    One label a line, UTF-8; what follows the last one may be blank. Raises BadModel for a file that is not that.
    """
    for name in (task, model.stem):
        path = model.parent / f"{name}{SUFFIX}"
        if path.is_file():
            return _read(path)
    return ()


def _read(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except OSError as error:
        raise BadModel(path, f"cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadModel(path, "is not text in UTF-8; write one label a line.") from error
    labels = tuple(line.strip() for line in lines)
    if not labels:
        raise BadModel(path, "the file is empty; write one label a line.")
    if not all(labels):
        raise BadModel(path, f"line {labels.index('') + 1} is blank; write one label a line.")
    return labels
