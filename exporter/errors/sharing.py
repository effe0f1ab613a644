"""How networks are cut and shared, and the room to work in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from exporter.errors.base import ExportError


class TooFewSegments(ExportError):
    """The most segments that may be are fewer than what the tasks come down to."""

    def __init__(self, limit: int, possible: int) -> None:
        super().__init__(f"The tasks cannot be exported as {limit} segments; {possible} is the fewest that was found.")


class UnknownCutRule(ExportError):
    """A repository that was cut by a rule of another version."""

    def __init__(self, path: Path, rule: str, known: Iterable[str]) -> None:
        super().__init__(
            f"{path} was cut by the rule {rule!r}, which this version does not know; name one of: {', '.join(known)}."
        )


class BadSnap(ExportError):
    """A difference between weights for which none may be taken for another."""

    def __init__(self, snap: float, most: float) -> None:
        super().__init__(
            f"Weights that differ by {snap:g} of the largest one cannot be taken for each other; give more than 0 and at most {most:g}."
        )


class NoScratch(ExportError):
    """No folder for the weights that are being worked on."""

    def __init__(self, place: Path) -> None:
        super().__init__(f"There is no folder for temporary files, and {place} cannot be written; let TMPDIR name one that can.")
