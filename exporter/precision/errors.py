"""What is refused of networks in int8, one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contract.units import listed
from exporter.errors import ExportError


class BadExamples(ExportError):
    """Data that a network cannot be calibrated with, or judged on."""

    def __init__(self, source: object, reason: str) -> None:
        super().__init__(f"{source}: {reason}")


class NoQuantiser(ExportError):
    """The library that quantises networks is not installed."""

    def __init__(self) -> None:
        super().__init__("Networks are quantised by nncf, which is not installed; install espalier[quantize].")


class NeedsExamples(ExportError):
    """Int8 is asked for, and nothing to calibrate with is given."""

    def __init__(self) -> None:
        super().__init__("int8 needs data to calibrate and to judge the tasks with; give images, or rows of their input.")


class NeedlessExamples(ExportError):
    """Data to calibrate with is given, and nothing is to be quantised."""

    def __init__(self) -> None:
        super().__init__(
            "Data to calibrate with is of use only where networks are to be in int8; say that they are, or leave it out."
        )


class BadMaxDrop(ExportError):
    """A loss of accuracy that is no share."""

    def __init__(self, share: float) -> None:
        super().__init__(f"The largest drop is {share:g}; give a share of the answers from 0 up to 1, such as 0.005.")


class CannotQuantise(ExportError):
    """A task of a form that is not quantised here."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(f"Task {task!r} cannot be in int8: it {reason}.")


class NeedsPrecision(ExportError):
    """Tasks that come to a repository in int8, of which nobody has said what becomes of them."""

    def __init__(self, path: Path, tasks: Sequence[str], segments: Sequence[str]) -> None:
        named = listed([repr(task) for task in tasks])
        super().__init__(
            f"{named} would share {listed(segments)} with tasks that {path} has in int8, where answers differ by what nobody has measured; "
            "say that new tasks are to be in int8, with data to calibrate and to judge them with, or in fp32, on a trunk of their own."
        )


class DamagedInt8(ExportError):
    """A model in int8 that is not what its name says."""

    def __init__(self, segment: str) -> None:
        super().__init__(f"Segment {segment!r} is damaged: its model is not the one that was named so; export it again.")
