"""Commands as a document has them."""

from __future__ import annotations

import shlex
from pathlib import Path

_DOCS = Path(__file__).parent.parent / "docs"


def commands(document: str, heading: str) -> list[list[str]]:
    """Return the words of the commands below a heading of the second level, in their order."""
    text = (_DOCS / document).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line.strip() for line in text.split("\n") if line.startswith("    ")]
    return [shlex.split(line) for line in lines if line]
