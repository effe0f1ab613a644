"""Models that are loaded and unloaded while serving."""

from __future__ import annotations

from contract.errors import EspalierError, InvalidRequest


class LoadFailed(EspalierError):
    """A model could not be loaded while serving; what was served before is served still."""

    def __init__(self, name: str, reason: EspalierError) -> None:
        super().__init__(f"Model {name!r} was not loaded, and nothing has changed: {reason}")


class NotATask(InvalidRequest):
    """Model control was asked for a model that comes and goes with others."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Model {name!r} is no task; it comes and goes with the tasks, so load or unload one of those.")


class LastModel(InvalidRequest):
    """The last task of a server cannot be unloaded."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Task {name!r} is the last one that is served; load another one first, or stop the server.")


class Unauthenticated(EspalierError):
    """Model control without a token."""

    def __init__(self) -> None:
        super().__init__("Loading and unloading models needs the token of this server, as `Authorization: Bearer TOKEN`.")


class Forbidden(EspalierError):
    """Model control with a wrong token."""

    def __init__(self) -> None:
        super().__init__("The token is not this server's.")
