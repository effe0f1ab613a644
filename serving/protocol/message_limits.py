"""What a request may hold beside tensors' data, and how long it may take over gRPC."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """Limits of a request.

    strings: in its tensors together; each takes some 90 bytes beyond its text. objects: inputs, outputs and their parameters in its JSON.
    text_bytes: of a name, a shape, the parameters of a tensor in JSON; of a text in a gRPC message. fields: of a gRPC message beside
    tensors' data; the dearest, an input, takes 800 bytes. small_message_bytes: of a gRPC message to a method that takes no tensors.
    calls, streams: of gRPC, that are under way at a time. stalled_s: seconds for a gRPC message to come, or to go.
    """

    strings: int = 1 << 17
    objects: int = 1 << 15
    text_bytes: int = 1 << 16
    fields: int = 1 << 13
    small_message_bytes: int = 1 << 16
    calls: int = 8192
    streams: int = 1024
    stalled_s: float = 60.0


USUAL = MessageLimits()
