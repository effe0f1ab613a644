"""Every error of charts, one sentence each."""

from __future__ import annotations

from pathlib import Path

from espalier.figures.repository.errors import PlotError


class LedgerLacks(PlotError):
    """A ledger does not hold what a chart shows."""

    def __init__(self, path: Path, lacks: str, remedy: str) -> None:
        super().__init__(f"{path} holds {lacks}; {remedy.rstrip('.')}.")


class OneLedgerOnly(PlotError):
    """Several ledgers were given for a chart of one."""

    def __init__(self, kind: str, count: int) -> None:
        super().__init__(f"A chart of kind {kind} is drawn from one ledger, not {count}; only profiles stand side by side.")


class OtherBlocks(PlotError):
    """Ledgers whose profiles do not share an axis."""

    def __init__(self, first: Path, other: Path) -> None:
        super().__init__(f"{first} and {other} are about networks with other blocks; profiles side by side need the same blocks.")
