"""The tasks of a repository: their names, outputs, labels and kinds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from exporter.errors.base import ExportError


class NoTasks(ExportError):
    """Nothing to export."""

    def __init__(self) -> None:
        super().__init__("There is no task to export.")


class BadTaskName(ExportError):
    """A task name that cannot be a folder and a tensor name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name!r} cannot name a task: {reason}.")


class SameOutputNames(ExportError):
    """Outputs of one network that clients could not tell apart."""

    def __init__(self, task: str, names: Iterable[str], name: str) -> None:
        listed = " and ".join(map(repr, names))
        super().__init__(f"Outputs {listed} of task {task!r} would both be called {name!r}; export the network with other names.")


class TaskExists(ExportError):
    """A task of that name is in the repository."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Task {name!r} is in the repository already; choose another name, or have it replaced.")


class LastTask(ExportError):
    """A repository without a task is none."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} would hold no task any more; delete the folder if you want none of its tasks.")


class LabelsDoNotFit(ExportError):
    """A task with more or fewer labels than outputs."""

    def __init__(self, task: str, labels: int, outputs: int) -> None:
        super().__init__(f"Task {task!r} has {labels} labels for {outputs} outputs.")


class LabelsOfNoClasses(ExportError):
    """Labels of a task of no kind, whose outputs are no vector of so many classes."""

    def __init__(self, task: str, labels: int, shapes: Sequence[tuple[int, ...]]) -> None:
        described = " and ".join(str(list(shape)) for shape in shapes)
        super().__init__(f"Task {task!r} has {labels} labels for outputs of shape {described} per row.")
        self.task = task


class KindNeedsImages(ExportError):
    """A kind of answers about images, of a task of which nothing says how an image becomes its input. kind: as "a mask"."""

    def __init__(self, task: str, kind: str) -> None:
        super().__init__(
            f"It is not known how an image becomes the input of task {task!r}, and {kind} lies in one: give its preprocessing."
        )
        self.task = task


class KindOfAnother(ExportError):
    """A kind that the network of a task cannot be of. reason: a clause about the task."""

    def __init__(self, task: str, kind: str, reason: str) -> None:
        super().__init__(f"Task {task!r} cannot be of the kind {kind!r}: it {reason}.")
