"""What can go wrong with a local Triton, one sentence each."""

from __future__ import annotations

from pathlib import Path

from contract.errors import EspalierError


class TritonUnavailable(EspalierError):
    """The local Triton cannot be set up, or not on this machine."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The local Triton cannot be had here: {reason}; serve with `espalier serve REPO`, or run Triton's container "
            "(docs/guides/triton.md)."
        )


class TritonFailed(EspalierError):
    """A Triton that was started did not become ready, or ended by itself."""

    def __init__(self, what: str, cause: str) -> None:
        super().__init__(f"Triton {what}: {cause or 'its log, above, says why'}.")


class NoSuchRepository(EspalierError):
    """Triton was to serve what is not a folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not a folder; give the folder that `espalier export` wrote.")
