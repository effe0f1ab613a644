"""Every error of figures, one sentence each."""

from __future__ import annotations

from pathlib import Path

from contract.errors import EspalierError


class PlotError(EspalierError):
    """Anything that plotting refuses or fails at, with one sentence for the user."""


class UnknownPlotFormat(PlotError):
    """A file name that does not say SVG or PNG."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} does not say what to draw; a plot's file name must end in .svg or .png.")


class PlotNotWritten(PlotError):
    """The file cannot be written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"The plot cannot be written to {path} ({reason}); give a file in a folder that exists and can be written to."
        )


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
