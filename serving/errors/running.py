"""A request that is right and cannot be computed now, or failed while it was."""

from __future__ import annotations

from collections.abc import Sequence

from contract.errors import EspalierError


class NotReady(EspalierError):
    """The server is starting, draining, or its engine is down."""


class ModelNotReady(NotReady):
    """A segment cannot be opened. model: that needs it; "": some do."""

    def __init__(self, model: str, segments: Sequence[str]) -> None:
        more = f" and {len(segments) - 1} more" if len(segments) > 1 else ""
        what = f"Model {model!r} is not ready" if model else "Not every model is ready"
        super().__init__(f"{what}: segment {segments[0]!r}{more} cannot be opened from its files; the server's log says why.")


class EngineDown(NotReady):
    """What computes is somewhere else, and does not answer."""

    def __init__(self) -> None:
        super().__init__("What computes for this server does not answer at the moment; try again later.")


class QueueFull(EspalierError):
    """So much waits that one more request would only wait in vain. model: the one whose share of it is full; "": all of it is."""

    def __init__(self, waiting: int, limit: int, unit: str = "rows", model: str = "") -> None:
        full = f"for model {model!r}, whose share of the limit of {limit} has no room for this request" if model else ""
        super().__init__(f"{waiting} {unit} are waiting {full or f'and {limit} is the limit'}; try again later.")
        self.limit = {"rows": "queue", "bytes of requests": "pending_bytes", "pixels of images": "waiting_pixels"}.get(unit, "")


class TooManyCalls(QueueFull):
    """So many calls of gRPC, or streams, as `what` says, are under way that one more has no place."""

    def __init__(self, limit: int, what: str) -> None:
        super().__init__(limit, limit, what)
        self.limit = what


class DeadlineExceeded(EspalierError):
    """The client's time is up."""

    def __init__(self) -> None:
        super().__init__("The request's deadline has passed; what had not begun was not computed.")


class TaskFailed(EspalierError):
    """A task of a request could not be computed."""

    def __init__(self, task: str, reason: EspalierError) -> None:
        super().__init__(f"Task {task!r} could not be computed: {reason}")


class EngineError(EspalierError):
    """A segment failed while it ran: ours to mend, not the client's."""


class SegmentClosed(EngineError):
    """A segment was to run at once, and would have had to be opened first."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Segment {name!r} is closed; open it first.")


class CannotBundle(EspalierError):
    """A segment cannot be computed in one session with others: it runs by itself. why: a clause."""

    def __init__(self, segment: str, why: str) -> None:
        super().__init__(f"Segment {segment!r} is run by itself, and not in one session with others: {why}.")
        self.segment = segment


class FeaturesElsewhere(EspalierError):
    """A feature cache for an engine whose features are not in this process."""

    def __init__(self) -> None:
        super().__init__(
            "There can be no feature cache where other servers compute: what their segments give stays there; leave it out, or let this "
            "process compute."
        )
