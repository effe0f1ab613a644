"""The tokenizers of the tasks that are served: opened before anybody asks, each once, however many tasks have it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from contract.errors import ExtraNeeded, RepositoryError
from contract.repository.config import TOKENIZER_FILE
from contract.repository.files import CANARY
from contract.repository.model import Repository
from contract.text import TextInput, Tokenizer
from serving.process.threads import to_thread

log = logging.getLogger(__name__)


class Tokenizers:
    """Those that have been opened. To be used from one event loop."""

    def __init__(self) -> None:
        self._open: dict[str, Tokenizer] = {}
        self._missing: ExtraNeeded | None = None

    async def open(self, repository: Repository) -> None:
        """Open what the tasks of `repository` and their canaries need. Raises RepositoryError for a file that is damaged.

        Without the library there is one line in the log, and the tasks are served by their ids.
        """
        for task, text, file in _served(repository):
            if text.sha256 in self._open:
                continue
            try:
                self._open[text.sha256] = await to_thread(_read, task, text, file)
            except ExtraNeeded as error:
                if self._missing is None:
                    log.warning("Tasks that take text are served by ids alone. %s", error)
                self._missing = error
                return

    def of(self, text: TextInput) -> Tokenizer:
        """Return the tokenizer for `text`, of a task that has been opened. Raises ExtraNeeded where there is no library."""
        if self._missing is not None and text.sha256 not in self._open:
            raise self._missing
        return self._open[text.sha256]

    def keep_only(self, *repositories: Repository) -> None:
        """Let go of those that none of `repositories` needs."""
        needed = {text.sha256 for repository in repositories for _, text, _ in _served(repository)}
        self._open = {digest: tokenizer for digest, tokenizer in self._open.items() if digest in needed}


def _served(repository: Repository) -> Iterator[tuple[str, TextInput, Path]]:
    """Yield the name of each task that takes texts and answers requests, how it takes them, and its tokenizer's file."""
    for task in repository.tasks.values():
        folder = repository.path / task.name
        for version, place in ((task, folder), (task.canary.task if task.canary else None, folder / CANARY)):
            if version is not None and version.text is not None:
                yield task.name, version.text, place / TOKENIZER_FILE


def _read(task: str, text: TextInput, file: Path) -> Tokenizer:
    try:
        content = file.read_bytes()
        if sha256(content).hexdigest() != text.sha256:
            raise ValueError("it is another one than its configuration says")
        return Tokenizer(content)
    except (OSError, ValueError) as error:
        raise RepositoryError(f"The tokenizer of task {task!r} is damaged ({error}); export it again.") from error
