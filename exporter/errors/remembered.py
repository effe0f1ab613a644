"""What a repository remembers of its export, and is not there any more, or something else by now."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from contract.repository.origin import BackboneRecord, content_words
from exporter.errors.base import ExportError


class BackboneMoved(ExportError):
    """The file of a remembered backbone is not where it was."""

    def __init__(self, record: BackboneRecord, looked: Iterable[Path]) -> None:
        super().__init__(
            f"The repository was exported with the backbone {record}, and there is no "
            f"{' and no '.join(map(str, looked))} here; give the backbone by where it is now."
        )


class BackboneChanged(ExportError):
    """What a remembered backbone's name leads to is something else by now. found: its hash, and its size in bytes."""

    def __init__(self, record: BackboneRecord, where: str, found: tuple[str, int]) -> None:
        super().__init__(
            f"The repository was exported with the backbone {record}, and {where} is something else by "
            f"now ({content_words(*found)}); give the backbone as it was, wherever it is."
        )


class BackboneIsCode(ExportError):
    """A remembered backbone is Python code."""

    def __init__(self, record: BackboneRecord) -> None:
        super().__init__(
            f"The repository was exported with the backbone {record.reference!r}, which is Python code and is run only where somebody "
            "names it; give it again."
        )
