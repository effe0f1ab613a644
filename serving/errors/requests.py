"""A request that asks for what there is not, or in a way that is not offered."""

from __future__ import annotations

from collections.abc import Iterable

from contract.errors import EspalierError, InvalidRequest
from contract.units import listed, quoted


class UnknownModel(EspalierError):
    """No model (task) of that name or version."""

    def __init__(self, name: str, known: Iterable[str], version: str = "") -> None:
        what = f"version {quoted(version)} of model {quoted(name)}" if version else f"model {quoted(name)}"
        super().__init__(f"Unknown {what}; known are: {listed(sorted(known))}.")
        self.name = name


class UnknownRegion(EspalierError):
    """No shared memory region of that name. The sentence names none: other clients' regions are not for everybody."""

    def __init__(self) -> None:
        super().__init__("The shared memory region is not registered; register it first.")


class TooManyNames(InvalidRequest):
    """A request names more outputs, or tasks, than there are. of: whose outputs."""

    limit = "names"

    def __init__(self, named: int, known: int, what: str, of: str = "") -> None:
        there_are = f"{of} has {known}" if of else f"there are {known}"
        super().__init__(f"The request names {named} {what}, and {there_are}; name each once.")


class TooManyRows(InvalidRequest):
    """A request that cannot be divided has more rows than a run may have."""

    def __init__(self, rows: int, limit: int, segment: str) -> None:
        super().__init__(
            f"The request has {rows} rows, of which {limit} can go at once, and it cannot be divided: in segment {segment!r} the rows of a "
            f"batch may affect each other. Send at most {limit} rows at a time."
        )


class NoImageTask(InvalidRequest):
    """An image came for all tasks that take one, and none does."""

    def __init__(self) -> None:
        super().__init__("No task takes images and gives classes; send tensors through v2/models/TASK/infer.")


class NoTextTask(InvalidRequest):
    """A text came for all tasks that take one, and none does."""

    def __init__(self) -> None:
        super().__init__("No task takes text and gives classes; send tensors through v2/models/TASK/infer.")


class NoText(InvalidRequest):
    """A request about texts without one."""

    def __init__(self) -> None:
        super().__init__("No text was given; give at least one.")


class TooManyTexts(InvalidRequest):
    """A request has more texts than may be."""

    limit = "texts"

    def __init__(self, texts: int, limit: int) -> None:
        super().__init__(f"The request has {texts} texts, more than the limit of {limit}; send fewer at once.")


class Unsupported(EspalierError):
    """A part of the protocol that this server does not offer."""
