"""What all errors of the exporter are, and how names are listed in their sentences."""

from __future__ import annotations

from collections.abc import Sequence

from contract.errors import EspalierError


class ExportError(EspalierError):
    """Anything that the exporter refuses or fails at, with one sentence for the user."""


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return `names` as words, the first `most` of them and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
