"""What an attack is, and the memory that a request may take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.harness.served import ServerProcess

LOST = "closed"  # the outcome where the server has closed the connection without an answer, or before all was sent
# What is promised of a request, beside what its network takes: bytes for each byte of the body as it is sent, of text (JSON or protobuf,
# decompressed), of the answer; and for each pixel of a picture within the limit.
PER_BODY_BYTE, PER_TEXT_BYTE, PER_ANSWER_BYTE, PER_PIXEL = 3, 8, 3, 12
# Threads begin, allocators keep parts of pages: for each server once, whatever was sent.
AROUND_BYTES = 16 << 20
MESSAGE_BYTES = 24 << 20  # of gRPC, the most that a server lets in by itself


@dataclass(frozen=True)
class Attack:
    """Something that a stranger sends. play: sends it and returns how it ended, which has to be one of `outcomes`.

    budget_bytes: memory that it may take beyond rest.
    """

    name: str
    play: Callable[[ServerProcess], Awaitable[str]]
    outcomes: frozenset[str]
    budget_bytes: int


def promised(*, body: int = 0, text: int = 0, answer: int = 0, pixels: int = 0) -> int:
    """Return the memory in bytes that a request of that size may take: the largest of what each of its parts may."""
    parts = (PER_BODY_BYTE * body, PER_TEXT_BYTE * text, PER_PIXEL * pixels + PER_BODY_BYTE * body)
    return max(parts) + PER_ANSWER_BYTE * answer
