"""What a connection over HTTP may cost before its request is known: sizes, counts and times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_LEAST_CONNECTIONS = 16
_USUAL_FILES = 64  # open when nothing is known of it


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits of one connection, and on how many there are.

    head_bytes: of the request line and the headers together, and of what frames the chunks of a body. url_bytes, headers: of a request.
    connections: 0 means as many as the limit on open files leaves room for. Times in seconds: silent_s, until the first byte of a
    connection; keep_alive_s, between two requests; head_s, from a head's first byte to its last; body_s, without a byte of a body, and
    after which its bytes a second may be no fewer than body_rate; unread_s, without a byte taken of an answer.
    """

    head_bytes: int = 64 * 1024
    url_bytes: int = 16 * 1024
    headers: int = 128
    connections: int = 0
    silent_s: float = 20.0
    # Longer than load balancers and clients keep idle connections, 60 s as a rule: whoever asks is to close them. Where the server does,
    # a request that was just sent is lost.
    keep_alive_s: float = 75.0
    head_s: float = 20.0
    body_s: float = 60.0
    body_rate: int = 1024
    unread_s: float = 60.0

    @property
    def shortest_s(self) -> float:
        """Return the shortest of the times."""
        return min(self.silent_s, self.keep_alive_s, self.head_s, self.body_s, self.unread_s)


def most_connections() -> int:
    """Return how many connections leave a quarter of the files that this process may have open, and those that it has."""
    try:
        from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
    except ModuleNotFoundError:  # not on Windows
        return 1024
    most = getrlimit(RLIMIT_NOFILE)[0]
    if most == RLIM_INFINITY:
        return 65_536
    listed = Path("/proc/self/fd")
    used = sum(1 for _ in listed.iterdir()) if listed.is_dir() else _USUAL_FILES
    return max(_LEAST_CONNECTIONS, most - most // 4 - used)
