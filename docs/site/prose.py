"""How long documents and their sentences are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LONG = 30  # words of a sentence, beyond which it is reported
_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_CODE = re.compile(r"`[^`]*`")
_BEGIN = re.compile(r"^\s*(?:[-*] |\d+\. |\||#)")
_END = re.compile(r"(?<=[.?!])[\")*]*\s+(?=[\"(*`A-Z0-9])")


@dataclass(frozen=True)
class LongSentence:
    """A sentence with more than `LONG` words."""

    page: str
    words: int
    text: str


def words(text: str) -> int:
    """Count words of a document as it is read: no code blocks, no addresses of links; code within a line is one word."""
    return sum(len(sentence.split()) for sentence in sentences(text))


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a document in Markdown; a heading, an item without a stop and a cell of a table are one each."""
    for paragraph in _paragraphs(_plain(text)):
        for part in _END.split(paragraph):
            if re.search(r"\w", part):
                yield part.strip()


def long_sentences(pages: dict[str, str]) -> list[LongSentence]:
    """Return the long sentences of documents by name, the longest first."""
    found = [
        LongSentence(page, count, sentence)
        for page, text in pages.items()
        for sentence in sentences(text)
        if (count := len(sentence.split())) > LONG
    ]
    return sorted(found, key=lambda one: -one.words)


def read_pages(root: Path) -> dict[str, str]:
    """Return README.md and the documents by their paths from `root`; not those that are made when the site is."""
    files = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in files}


def _plain(text: str) -> str:
    text = _without_indented(_FENCED.sub("", _COMMENT.sub("", text)))
    return _CODE.sub("CODE", _LINK.sub(r"\1", text))


def _without_indented(text: str) -> str:
    """Take out blocks of code that are indented: behind an empty line, a heading or others of them."""
    kept, may_begin = [], True
    for line in text.split("\n"):
        is_code = may_begin and line.startswith("    ")
        kept += [] if is_code else [line]
        may_begin = is_code or not line.strip() or line.startswith("#")
    return "\n".join(kept)


def _paragraphs(text: str) -> Iterator[str]:
    """Yield paragraphs, headings, items and cells, each on one line."""
    open_lines: list[str] = []
    for line in [*text.split("\n"), ""]:
        if open_lines and (not line.strip() or _BEGIN.match(line) or open_lines[0].startswith("#")):
            yield from _cells(" ".join(open_lines))
            open_lines = []
        if line.strip():
            open_lines.append(line.strip())


def _cells(paragraph: str) -> list[str]:
    if paragraph.startswith("|"):
        return paragraph.strip("|").split("|")
    return [re.sub(r"^(?:[-*] |\d+\. |#+ )", "", paragraph)]
