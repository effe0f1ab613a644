"""Data to calibrate and to judge tasks with: a folder of images, a source as tuning takes it, or rows in a .npy file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contract.dtypes import Array, dtype_name
from contract.preprocessing import Preprocessing
from contract.repository import Task, TensorSpec
from exporter.precision.errors import BadExamples
from exporter.precision.examples import MOST_TO_CALIBRATE, MOST_TO_JUDGE, Examples, Rows
from tuning.data.decode import Item, decode
from tuning.data.folders import scan
from tuning.data.left_out import sentences
from tuning.data.sources import DATA_SOURCES, load_data

_NPY = ".npy"
_KINDS = ", ".join(f"{name}:" for name in DATA_SOURCES)


@dataclass(frozen=True)
class _Data:
    """Rows, and of those to judge on what is right: places in `labels`; None where nobody knows, `why` being the reason."""

    rows: Rows
    targets: Array | None = None
    labels: tuple[str, ...] = ()
    why: str = ""
    remarks: tuple[str, ...] = ()


@dataclass
class CalibrationData:
    """What `sources` name, by task; under None what all other tasks take. Each is read once for all tasks that take the same.

    Raises BadExamples, when it is made, for what can be seen to be no data.
    """

    sources: Mapping[str | None, str]
    _read: dict[tuple[str, TensorSpec, Preprocessing | None], _Data] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for source in self.sources.values():
            if source.endswith(_NPY):
                _open(source)
            elif not Path(source).is_dir():
                if source.partition(":")[0] not in DATA_SOURCES:
                    raise BadExamples(source, f"is neither a folder of images, nor a .npy file, nor a source of data ({_KINDS}).")
            elif not scan(Path(source)).images:
                raise BadExamples(source, "holds no images.")

    def check_tasks(self, names: Sequence[str]) -> None:
        """Raise BadExamples unless each source is for one of the tasks `names`, and each of these has one."""
        for name, source in self.sources.items():
            if name is not None and name not in names:
                raise BadExamples(source, f"is for the task {name!r}, which does not come; these do: {', '.join(names)}.")

    def __call__(self, task: Task) -> Examples:
        """Return the examples of `task`. Raises BadExamples, TuningError."""
        source = self.sources.get(task.name, self.sources.get(None))
        if source is None:
            raise BadExamples(
                task.name, f"there is no data to calibrate and judge this task with; there is some for {_named(self.sources)}."
            )
        key = source, task.inputs[0], task.preprocessing
        if key not in self._read:
            self._read[key] = _rows_of_file(source, task.inputs[0]) if source.endswith(_NPY) else _images(source, task)
        data = self._read[key]
        targets, why = _targets(data, task)
        return Examples(data.rows, targets, why, (_split(data.rows), *data.remarks))


def _named(sources: Mapping[str | None, str]) -> str:
    return ", ".join(str(name) for name in sources)


def _split(rows: Rows) -> str:
    return f"{rows.source}: calibrated with {len(rows.calibrate)} rows, judged on {len(rows.judge)} others."


def _targets(data: _Data, task: Task) -> tuple[Array | None, str]:
    """Return the right classes as places in the labels of `task`, or None and why there are none."""
    if data.targets is None:
        return None, data.why
    if not task.labels:
        return None, "the task has no labels to compare with those of the data"
    if set(data.labels) != set(task.labels):
        return None, "the labels of the data are not those of the task"
    places = np.array([task.labels.index(label) for label in data.labels], np.int64)
    return places[data.targets], ""


def _open(source: str) -> Array:
    try:
        found: Array = np.load(source, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise BadExamples(source, "there is no such file.") from error
    except (OSError, ValueError, EOFError) as error:
        raise BadExamples(source, "is no array that numpy.save has written without pickling.") from error
    return found


def _rows_of_file(source: str, spec: TensorSpec) -> _Data:
    array = _open(source)
    if array.ndim < 1 or array.shape[1:] != spec.shape or dtype_name(array) != spec.dtype:
        raise BadExamples(
            source,
            f"is an array of {dtype_name(array)} of shape {list(array.shape)}; the tasks take {spec.dtype} of shape "
            f"{['n', *spec.shape]}.".replace("'n'", "n"),
        )
    rows = _dealt(source, array, "rows")
    if not all(np.isfinite(part).all() for part in (rows.calibrate, rows.judge)):
        raise BadExamples(source, "holds numbers that are not finite; leave those rows out.")
    return _Data(rows, why="rows of an array have no labels")


def _dealt(source: str, array: Array, what: str) -> Rows:
    """Return one row after the other to calibrate with and to judge on, in turn; what is too much to calibrate with is judged on."""
    if len(array) < 2:
        found = f"is only one of the {what}" if len(array) else f"holds no {what}"
        raise BadExamples(source, f"{found}; at least two are needed, one to calibrate with and one to judge on.")
    places = np.arange(len(array))
    first = _spread(places[::2], MOST_TO_CALIBRATE)
    rest = _spread(np.setdiff1d(places, first), MOST_TO_JUDGE)
    return Rows(source, np.asarray(array[first]), np.asarray(array[rest]))


def _spread(places: Any, most: int) -> Any:
    """Return `most` of `places` at most, evenly spread."""
    count = min(len(places), most)
    return places[np.arange(count) * len(places) // max(count, 1)]


def _images(source: str, task: Task) -> _Data:
    """Return images as `task` takes them. Raises BadExamples, TuningError."""
    spec, how = task.inputs[0], task.preprocessing
    if how is None or not how.layout(spec.shape) or spec.dtype not in ("UINT8", "FP32"):
        raise BadExamples(
            source,
            f"holds images, and nothing says how an image becomes the input of task {task.name!r}; give rows of {spec.dtype} of shape "
            f"{list(spec.shape)} in a .npy file.",
        )
    folder = Path(source)
    found = _unlabelled(source, folder, how) if folder.is_dir() and not _has_classes(folder) else _labelled(source, how)
    given = (found.rows.calibrate, found.rows.judge)
    rows = Rows(found.rows.source, *(how.as_input(images, spec.dtype, how.layout(spec.shape)) for images in given))
    return replace(found, rows=rows)


def _has_classes(folder: Path) -> bool:
    """Whether images are in folders of `folder`, and none beside these."""
    images = scan(folder).images
    return all(len(image.parts) > 1 for image in images) and len({image.parts[0] for image in images}) > 1


def _labelled(source: str, how: Preprocessing) -> _Data:
    data = load_data(source, how)
    train, test = _spread(np.arange(len(data.train)), MOST_TO_CALIBRATE), _spread(np.arange(len(data.test)), MOST_TO_JUDGE)
    rows = Rows(source, data.train.images[train], data.test.images[test])
    return _Data(rows, data.test.targets[test], data.labels, remarks=data.remarks)


def _unlabelled(source: str, folder: Path, how: Preprocessing) -> _Data:
    names = scan(folder)
    items = [Item(name.as_posix(), 0, partial(Image.open, folder / name)) for name in names.images]
    places = _spread(np.arange(len(items)), MOST_TO_CALIBRATE + MOST_TO_JUDGE)
    images, _, left_out = decode([items[place] for place in places], how)
    why = "the images are in no folders of classes"
    return _Data(_dealt(source, images, "readable images"), why=why, remarks=sentences({**names.left_out, **left_out}))
