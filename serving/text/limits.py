"""What a request of texts may hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextLimits:
    """texts: of a request. texts_bytes: of its body, names of tasks and all; ids of one byte take 160 bytes while they are made."""

    texts: int = 64
    texts_bytes: int = 1 << 18
