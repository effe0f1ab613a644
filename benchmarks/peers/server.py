"""What a rival is: a way to serve the work, which starts a server that can be asked; and how many lines a user writes for it."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.processes import Processes
from benchmarks.peers.wires import RivalWire
from benchmarks.peers.work import Work

SEPARATE, SHARED, BATCHED = "separate networks", "shared trunk", "shared trunk, batching"
ONE_AT_A_TIME = "shared trunk, one run at a time"
ON_OPENVINO = "espalier on OpenVINO"  # a peer by itself: all others compute with one and the same ONNX Runtime
SAME = 1e-3  # of the largest score: the same arithmetic in another order
SEPARATE_SIDE, HEADS_SIDE = f"{SEPARATE}, side by side", f"{SHARED}, heads side by side"
_EMPTY = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


@dataclass(frozen=True)
class Endpoint:
    """One way to ask a server. port: on the loopback. allowed: how far its scores may be from the right ones, of the largest."""

    protocol: str
    wire: RivalWire
    port: int
    allowed: float = SAME


@dataclass(frozen=True)
class RivalServer:
    """A server that has been started, ready or not. check: raises RivalUnavailable when it has ended. lines: that a user has to write."""

    processes: Processes
    endpoints: Sequence[Endpoint]
    lines: int
    check: Callable[[], None] = lambda: None


_Serve = Callable[[Work, int], AbstractContextManager[RivalServer]]


@dataclass(frozen=True)
class Rival:
    """One way to serve the work.

    serve: with the work and the threads of a session; raises RivalUnavailable or a ServingError. environment: that it needs, by the name
    of its pins, "" for none.
    """

    name: str
    variant: str
    version: str
    serve: _Serve
    environment: str = ""


def count_lines(files: Iterable[Path]) -> int:
    """Return the lines that a user has to write in `files`: not empty and, in Python, neither comment nor docstring."""
    return sum(_count(file.name, file.read_text(encoding="utf-8")) for file in files)


def _count(name: str, text: str) -> int:
    if not name.endswith(".py"):
        return sum(bool(line.strip()) for line in text.splitlines())
    lines: set[int] = set()
    begins = True  # of a statement
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _EMPTY:
            begins = begins or token.type == tokenize.NEWLINE
        else:
            is_docstring = begins and token.type == tokenize.STRING
            if not is_docstring:
                lines.update(range(token.start[0], token.end[0] + 1))
            begins = False
    return len(lines)
