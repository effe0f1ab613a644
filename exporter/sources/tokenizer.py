"""The tokenizers that a user names, opened and checked before anything is exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contract.text import Tokenizer
from exporter.errors import BadTokenizer, TokenizerOfNobody

Tokenizers = Mapping[str, str | Path]
"""Files by the names of tasks; of "": for all tasks that have none of their own."""


@dataclass(frozen=True)
class TokenizerSource:
    """A tokenizer as it comes to tasks. file: for people. content: of the file. opened: that, by the library.

    pad, most: the id that fills rows up, and the most tokens of a text, as its model's folder says; None: nothing does.
    """

    file: Path
    content: bytes = field(repr=False)
    opened: Tokenizer = field(repr=False)
    pad: int | None = None
    most: int | None = None


def read_tokenizer(file: Path) -> TokenizerSource:
    """Return the tokenizer in `file`. Raises BadTokenizer, and ExtraNeeded without the library that reads it."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadTokenizer(file, f"cannot be read: {error.strerror}") from error
    try:
        return TokenizerSource(file, content, Tokenizer(content))
    except ValueError as error:
        raise BadTokenizer(file, f"is no tokenizer: {error}") from error


def read_tokenizers(files: Tokenizers, tasks: Mapping[str, object]) -> dict[str, TokenizerSource]:
    """Return the tokenizers of those of `tasks` that get one of `files`, each of which is read once.

    Raises TokenizerOfNobody for a name that is none of `tasks`, BadTokenizer, ExtraNeeded.
    """
    for name in files:
        if name and name not in tasks:
            raise TokenizerOfNobody(name, [*tasks])
    read = {Path(file): read_tokenizer(Path(file)) for file in dict.fromkeys(files.values())}
    chosen = {name: files.get(name, files.get("")) for name in tasks}
    return {name: read[Path(file)] for name, file in chosen.items() if file is not None}
