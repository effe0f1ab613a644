"""Examples of the documents: blocks of commands and code, each with a mark that says which test runs it, or why none does.

A mark is a comment in the line above a block:

    <!-- run: tests/espalier/test_python_docs.py -->
    <!-- not run: it needs the hub -->

Blocks of the language `text` are no examples: pictures, answers, parts of files.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_MARK = re.compile(r"<!-- (run|not run): (.+) -->")


@dataclass(frozen=True)
class Block:
    """A block of a document. document: its path from the root; line: of the file, from 1; language: "" of an indented one.

    test: the file that runs it; reason: why no test does; "" where the document does not say.
    """

    document: str
    line: int
    language: str
    text: str
    test: str = ""
    reason: str = ""

    @property
    def is_example(self) -> bool:
        """Whether somebody might run it."""
        return self.language != "text"

    @property
    def is_marked(self) -> bool:
        """Whether the document says which test runs it, or why none does."""
        return bool(self.test or self.reason)


def documents() -> list[str]:
    """Return the paths of README.md and docs/ from the root."""
    return ["README.md", *sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "docs").rglob("*.md"))]


def blocks(document: str) -> list[Block]:
    """Return the blocks of a document, in their order."""
    return list(_blocks(document, (ROOT / document).read_text(encoding="utf-8").split("\n")))


def examples(document: str, test: str) -> list[Block]:
    """Return the blocks that the test in the file `test` is to run, both being paths from the root."""
    found = [block for block in blocks(document) if block.test and test.endswith(block.test)]
    assert found, f"no block of {document} is marked as run by {test}"
    return found


def commands(document: str, test: str) -> list[list[str]]:
    """Return the words of the commands in these blocks."""
    return [words for block in examples(document, test) for words in commands_of(block.text)]


def commands_of(text: str) -> list[list[str]]:
    """Return the words of each command of a shell, without comments; lines that end in a backslash go on."""
    joined = re.sub(r"\\\n\s*", " ", text)
    words = (shlex.split(line, comments=True) for line in joined.split("\n"))
    return [found for found in words if found]


def _blocks(document: str, lines: list[str]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        line, above = lines[number], lines[number - 1] if number else ""
        if line.startswith("```"):
            end = next(after for after in range(number + 1, len(lines)) if lines[after].startswith("```"))
            yield _block(document, number, line[3:].strip(), lines[number + 1 : end], above)
            number = end
        elif line.startswith("    ") and (not above.strip() or above.startswith(("#", "<!--"))):
            end = next((after for after in range(number, len(lines)) if not lines[after].startswith("    ")), len(lines))
            yield _block(document, number, "", [line[4:] for line in lines[number:end]], above)
            number = end
        number += 1


def _block(document: str, number: int, language: str, lines: list[str], above: str) -> Block:
    found = _MARK.fullmatch(above)
    test, reason = (found[2], "") if found and found[1] == "run" else ("", found[2] if found else "")
    return Block(document, number + 1, language, "\n".join(lines), test, reason)
