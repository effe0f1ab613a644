"""Takes ports, or says clearly that they are taken."""

from __future__ import annotations

import errno
import socket
from typing import Any

from serving.errors import AddressInUse, InvalidAddress


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a TCP socket that listens on `host`:`port` (0: any free port). Raises AddressInUse, InvalidAddress."""
    family, kind, protocol, _, address = _resolve(host, port)
    listener = socket.socket(family, kind, protocol)
    try:
        # Not to share the port: to take one that a server has just left.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise _explained(error, host, port) from error
    listener.setblocking(False)
    return listener


def format_address(host: str, port: int) -> str:
    """Return host:port, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _resolve(host: str, port: int) -> Any:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, OverflowError, UnicodeError) as error:
        raise InvalidAddress(host, port, "no such host or port") from error


def _explained(error: OSError, host: str, port: int) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(host, port)
    return InvalidAddress(host, port, error.strerror or str(error))
