"""Questions about more images than go at once: batches, and a folder of files whose answers go to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Protocol, TypeVar

from contract.errors import InvalidRequest
from contract.repository.model import Task
from espalier.answers_file import AnswersFile, FolderRow
from espalier.image_files import files_in
from espalier.pictures import NamedImage, prepare_named
from serving.answers.answer import About
from serving.answers.prediction import Prediction
from serving.answers.shown import check_shown
from serving.errors import NotAnImage
from serving.images.tasks import Images

BATCH = 32  # images of a request
_T = TypeVar("_T")


class _Ask(Protocol):
    """Asks about a few images; see `LocalRepository`."""

    def __call__(
        self, images: Sequence[NamedImage], tasks: Sequence[str], about: About, skipped: dict[str, str], /
    ) -> Prediction:
        """Return the answers about those that are not `skipped`."""


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield `items` in lists of `size`; the last may be shorter."""
    left = iter(items)
    while batch := [*islice(left, size)]:
        yield batch


def united(parts: Sequence[Prediction]) -> Prediction:
    """Return `parts`, of the same tasks, one after the other. Raises InvalidRequest for none."""
    if not parts:
        raise InvalidRequest("No image was given; give at least one.")
    return Prediction(
        {name: tuple(chain.from_iterable(part.tasks[name] for part in parts)) for name in parts[0].tasks},
        tuple(chain.from_iterable(part.runs for part in parts)),
        queue_seconds=sum(part.queue_seconds for part in parts),
        versions=parts[-1].versions,
        prepare_seconds=sum(part.prepare_seconds for part in parts),
        names=tuple(chain.from_iterable(part.names for part in parts)),
        cached=tuple(dict.fromkeys(chain.from_iterable(part.cached for part in parts))),
    )


@dataclass(frozen=True)
class FolderRun:
    """The files of `folder`, in batches. ask: answers about some images. about: how answers are wanted."""

    ask: _Ask
    folder: Path
    about: About

    def checked_tasks(self, known: Mapping[str, Task], names: Sequence[str] | None) -> list[Task]:
        """Return the tasks `names`, None: all that take images. Raises what asking them would, before a file is touched."""
        question = Images(prepare_named(()))
        names = [*dict.fromkeys(question.names(known) if names is None else names)]
        question.group(known, names, self.about.top_k, False)
        check_shown([known[name] for name in names], self.about.show)
        return [known[name] for name in names]

    def rows(
        self, tasks: Sequence[Task], out: str | Path | None, progress: Callable[[int, int], None] | None
    ) -> Iterator[FolderRow]:
        """Return the rows of all files that `out` has not yet. What is wrong with `out` or the folder is raised here, not later."""
        kept = None if out is None else AnswersFile(out, tasks, self.about)
        own = None if out is None else Path(out).resolve()
        files = {file.relative_to(self.folder).as_posix(): file for file in files_in(self.folder) if file.resolve() != own}
        left = [name for name in files if kept is None or name not in kept.files]
        return self._batches([task.name for task in tasks], files, left, kept, progress or (lambda _done, _all: None))

    def _batches(
        self,
        tasks: Sequence[str],
        files: Mapping[str, Path],
        left: Sequence[str],
        kept: AnswersFile | None,
        progress: Callable[[int, int], None],
    ) -> Iterator[FolderRow]:
        done = len(files) - len(left)
        for batch in batched(left, BATCH):
            rows = self._answered(tasks, {name: files[name] for name in batch})
            if kept is not None:
                kept.write(rows)
            done += len(rows)
            progress(done, len(files))
            yield from rows

    def _answered(self, tasks: Sequence[str], files: Mapping[str, Path]) -> list[FolderRow]:
        images = [NamedImage(str(file), file) for file in files.values()]
        skipped: dict[str, str] = {}
        try:
            answers = iter(self.ask(images, tasks, self.about, skipped).rows)
        except NotAnImage:
            if len(skipped) < len(images):
                raise
            answers = iter(())
        errors = {name: skipped.get(image.name, "") for name, image in zip(files, images, strict=True)}
        return [FolderRow(name, {}, error) if error else FolderRow(name, next(answers)) for name, error in errors.items()]
