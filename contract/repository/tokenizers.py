"""The tokenizers of tasks: a file beside each configuration. Equal ones are hard links of one where the file system has links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from contract.repository.config import TOKENIZER_FILE
from contract.repository.files import CANARY, PREVIOUS
from contract.repository.model import Repository, Task
from contract.repository.transaction.file_system import link_tree

TokenizerFiles = Mapping[str, Path | bytes]
"""Tokenizers by the SHA-256 (hex) of their files: where one lies, or what is in it."""


def tokenizer_files(repository: Repository) -> dict[str, Path | bytes]:
    """Return where the tokenizers of all versions of all tasks of `repository` lie."""
    return {digest: file for task in repository.tasks.values() for digest, file in files_of(repository.path, task)}


def files_of(folder: Path, task: Task) -> Iterator[tuple[str, Path]]:
    """Yield the hash and the place, in the repository in `folder`, of the tokenizer of each version of `task` that has one."""
    own = folder / task.name
    kept = {own: task, own / PREVIOUS: task.previous, own / CANARY: task.canary.task if task.canary else None}
    for place, version in kept.items():
        if version is not None and version.text is not None:
            yield version.text.sha256, place / TOKENIZER_FILE


def write_tokenizers(folder: Path, task: Task, known: TokenizerFiles) -> dict[str, Path]:
    """Write the tokenizers of `task`, whose folders are there, and return where each is now. known: at least those. Raises OSError."""
    written: dict[str, Path] = {}
    for digest, file in files_of(folder, task):
        source = written.get(digest, known[digest])
        if isinstance(source, bytes):
            file.write_bytes(source)
        else:
            link_tree(source, file)
        written[digest] = file
    return written
