"""Every error of plotting, one sentence each."""

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
