"""What data leaves out, and why: files by reason, and a sentence for each."""

from __future__ import annotations

from collections.abc import Mapping

LeftOut = Mapping[str, tuple[str, ...]]  # what follows "Left out" in a sentence, and the names of the files

UNREADABLE = "as damaged or no images"

_NAMED = 3  # how many files a sentence names at most


def together(*parts: LeftOut) -> LeftOut:
    """Return the files of all `parts` by reason."""
    found: dict[str, tuple[str, ...]] = {}
    for part in parts:
        for reason, names in part.items():
            found[reason] = found.get(reason, ()) + names
    return found


def sentences(left_out: LeftOut) -> tuple[str, ...]:
    """Return one sentence for each reason."""
    return tuple(f"Left out {reason}: {len(names)} ({_first(names)})." for reason, names in left_out.items())


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
