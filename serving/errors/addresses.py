"""Where a server listens, and what a client of it meets; limits in a form that says none."""

from __future__ import annotations

from contract.errors import EspalierError
from contract.units import printable


class AddressInUse(EspalierError):
    """Another process listens on the port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"Port {port} on {host} is in use by another process; choose another port, or 0 for any free one.")


class InvalidAddress(EspalierError):
    """A host and port that this machine cannot listen on."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"Cannot listen on port {port} of {host!r} ({reason}); give an address of this machine.")


class InvalidLimit(EspalierError):
    """A limit is given in a form that says none."""

    def __init__(self, given: str, wanted: str) -> None:
        super().__init__(f"{given!r} sets no limit; give {wanted}.")


class ServerUnreachable(EspalierError):
    """No server answers at an address."""

    def __init__(self, url: str, reason: object) -> None:
        super().__init__(
            f"No server answers at {url} ({printable(str(reason))}); start one with `espalier serve REPO`, or give another address."
        )


class RequestRefused(EspalierError):
    """A server that was asked said no, with a sentence of its own."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(f"The server refused the request ({status}): {printable(sentence)}")
        self.status, self.sentence = status, printable(sentence)


class LoadsRefused(RequestRefused):
    """A server does not load or unload models for who asks."""

    def __init__(self, url: str, refusal: RequestRefused) -> None:
        super().__init__(refusal.status, refusal.sentence)
        self.args = (
            f"The server at {url} takes no loads from here, so that nothing was changed ({self.status}): {self.sentence}",
        )
