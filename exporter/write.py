"""Writes a model repository: whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from exporter.errors import ExportError, ForeignFiles, NotARepository, OutputExists
from serving.errors import RepositoryError
from serving.repository import ALL_TASKS, Repository, Segment, Task, read_repository
from serving.repository.config import LABELS_FILE, all_tasks_config, segment_config, task_config, to_text
from serving.repository.read import CONFIG_FILE


def check_output(out: Path, force: bool) -> None:
    """Raise OutputExists, NotARepository or ForeignFiles unless `out` may be written."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise OutputExists(out)
    try:
        repository = read_repository(out)
    except RepositoryError as error:
        raise NotARepository(out) from error
    ours = {*repository.segments, *repository.tasks, ALL_TASKS}
    foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in ours)
    if foreign:
        raise ForeignFiles(out, foreign)


@contextmanager
def written_whole(out: Path, force: bool) -> Iterator[Path]:
    """Yield an empty folder beside `out` that takes its place when the block ends well, and vanishes when it does not.

    Raises ExportError when the folder cannot be written.
    """
    check_output(out, force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror}.") from error
    try:
        aside.chmod(0o755)  # mkdtemp's folders are private, a repository is for other processes
        yield aside
        _replace(aside, out)
    except OSError as error:
        raise ExportError(f"{out} could not be written ({error.strerror}); nothing was changed.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _replace(new: Path, out: Path) -> None:
    if not out.exists():
        new.rename(out)
        return
    old = new.with_name(new.name + ".old")
    out.rename(old)
    try:
        new.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_configs(
    folder: Path, segments: Mapping[str, Segment], tasks: Mapping[str, Task], cuts_left_out: Sequence[str] = ()
) -> Repository:
    """Write the configurations of `segments` (whose models are there already) and the ensembles of `tasks` into `folder`."""
    for segment in segments.values():
        (folder / segment.name / CONFIG_FILE).write_text(to_text(segment_config(segment)))
    for task in tasks.values():
        _ensemble_folder(folder, task.name, to_text(task_config(task)))
        _write_labels(folder / task.name / LABELS_FILE, task)
    _ensemble_folder(folder, ALL_TASKS, to_text(all_tasks_config(tasks.values(), cuts_left_out)))
    for task in tasks.values():
        _write_labels(folder / ALL_TASKS / f"{task.name}.{LABELS_FILE}", task)
    return read_repository(folder)


def model_path(folder: Path, segment: str) -> Path:
    """Return where the model of `segment` belongs, its folder made."""
    path = folder / segment / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _ensemble_folder(folder: Path, name: str, config: str) -> None:
    # Triton wants a version folder even of an ensemble, which keeps nothing in it.
    (folder / name / "1").mkdir(parents=True)
    (folder / name / CONFIG_FILE).write_text(config)


def _write_labels(file: Path, task: Task) -> None:
    if task.labels:
        file.write_text("".join(f"{label}\n" for label in task.labels))
