"""Reads a request's body and compresses a response's, within limits."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from serving.errors import BodyStalled, BodyTooLarge, InvalidRequest
from serving.protocol.fields import decimal
from serving.protocol.pending import Hold, PendingBytes
from serving.threads import to_thread

_MIN_COMPRESSED_BYTES = 1024  # below, compression costs more than it saves
_PIECE_BYTES = 64 * 1024
_MOST_RATIO = 1032  # of what DEFLATE unpacks to, to what it packs
_MOST_PAUSE_S = 60.0  # in the middle of a body, whose beginning takes memory meanwhile
_AUTODETECT = zlib.MAX_WBITS | 32  # gzip or zlib, by their headers; "deflate" means zlib in HTTP


async def read_body(
    headers: Mapping[str, str],
    receive: Receive,
    limit_bytes: int,
    hold: Hold | None = None,
    most_pause_s: float = _MOST_PAUSE_S,
) -> bytes:
    """Return the body of a request with these headers (names in lower case), decompressed.

    hold: counts its bytes, as they come and then as they are; None: nobody does. most_pause_s: after which the rest must go on to come.
    Raises BodyTooLarge as soon as it is over the limit, QueueFull as soon as there is no room for it, BodyStalled, InvalidRequest,
    ClientDisconnect.
    """
    hold = PendingBytes().hold() if hold is None else hold
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "deflate"):
        raise InvalidRequest(f"Content-Encoding {encoding!r} is not supported; use gzip, deflate or none.")
    declared = decimal(headers.get("content-length", ""))
    if declared is not None and declared > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    if declared is not None:
        hold.expect(declared)
    data = await _read(receive, limit_bytes, hold, most_pause_s)
    if encoding == "identity":
        return data
    unpacked = await to_thread(decompress, data, limit_bytes)
    hold.resize(len(unpacked))
    return unpacked


async def _read(receive: Receive, limit_bytes: int, hold: Hold, most_pause_s: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await (_receive_more(receive, most_pause_s) if chunks else receive())
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        hold.resize(size)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _receive_more(receive: Receive, most_pause_s: float) -> Message:
    try:
        async with asyncio.timeout(most_pause_s):
            return await receive()
    except TimeoutError:
        raise BodyStalled(most_pause_s) from None


def decompress(data: bytes, limit_bytes: int) -> bytes:
    """Return what the gzip or zlib stream `data` holds, never unpacking more than `limit_bytes`."""
    unpacker = zlib.decompressobj(_AUTODETECT)
    try:
        if len(data) * _MOST_RATIO > limit_bytes:
            _check_size(memoryview(data), limit_bytes)
        unpacked = unpacker.decompress(data)
    except zlib.error as error:
        raise InvalidRequest("The body is not what its Content-Encoding says: it does not decompress.") from error
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidRequest("The compressed body is truncated, or more follows after its end.")
    return unpacked


def _check_size(data: memoryview, limit_bytes: int) -> None:
    """Unpack `data` without keeping it: what a bomb had been unpacked to would stay with the process, freed between pieces in use."""
    unpacker = zlib.decompressobj(_AUTODETECT)
    size = 0
    for start in range(0, len(data), _PIECE_BYTES):  # what is not unpacked at once is copied, so it goes in by pieces, too
        rest: bytes | memoryview = data[start : start + _PIECE_BYTES]
        full = True
        while not unpacker.eof and (rest or full):  # a full piece: more may be ready
            piece = unpacker.decompress(rest, _PIECE_BYTES)
            rest, full = unpacker.unconsumed_tail, len(piece) == _PIECE_BYTES
            size += len(piece)
            if size > limit_bytes:
                raise BodyTooLarge(limit_bytes)


def accepted_compression(accept_encoding: str, size: int) -> str | None:
    """Return the compression for a response of `size` bytes that a client with this Accept-Encoding header wants, if any."""
    if size < _MIN_COMPRESSED_BYTES:
        return None
    entries = [entry.replace(" ", "").lower().split(";") for entry in accept_encoding.split(",")]
    accepted = {name for name, *parameters in entries if "q=0" not in parameters}
    return next((name for name in ("gzip", "deflate") if name in accepted), None)


def compress(data: bytes, encoding: str) -> bytes:
    """Return `data` compressed for the content coding "gzip" or "deflate", quickly rather than tightly."""
    return gzip.compress(data, 1) if encoding == "gzip" else zlib.compress(data, 1)
