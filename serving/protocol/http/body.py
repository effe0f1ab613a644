"""Reads a request's body and compresses a response's, within limits."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from contract.errors import InvalidRequest
from serving.errors import BodyTooLarge
from serving.process.work_pool import Check, WorkPool, no_check
from serving.protocol.fields import decimal
from serving.protocol.http.cancel_on_disconnect import cancel_on_disconnect
from serving.protocol.memory_budget import MemoryBudget, Reservation

_MIN_COMPRESSED_BYTES = 1024  # below, compression costs more than it saves
_PIECE_BYTES = 64 * 1024  # packed
_UNPACKED_PIECE_BYTES = 256 * 1024
_MOST_RATIO = 1032  # of what DEFLATE unpacks to, to what it packs
_AUTODETECT = zlib.MAX_WBITS | 32  # gzip or zlib, by their headers; "deflate" means zlib in HTTP
_WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_GZIP = b"\x1f\x8b"
_NOT_PACKED = "The body is not what its Content-Encoding says: it does not decompress."
_packing = WorkPool(name="packing")  # of its own: what packs and unpacks keeps nobody else waiting


async def read_body(
    headers: Mapping[str, str], receive: Receive, limit_bytes: int, reservation: Reservation | None = None
) -> bytes:
    """Return the body of a request with these headers (names in lower case), decompressed.

    reservation: counts its bytes, as they come and then as they are; None: nobody does. How long a body may take, its connection knows.
    Raises BodyTooLarge as soon as it is over the limit, QueueFull as soon as there is no room for it, InvalidRequest, ClientDisconnect.
    """
    reservation = MemoryBudget().reserve() if reservation is None else reservation
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "deflate"):
        raise InvalidRequest(f"Content-Encoding {encoding!r} is not supported; use gzip, deflate or none.")
    declared = decimal(headers.get("content-length", ""))
    if declared is not None and declared > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    if declared is not None:
        reservation.expect(declared)
    data = await _read(receive, limit_bytes, reservation)
    if encoding == "identity":
        return data
    return await cancel_on_disconnect(receive, _unpack(data, limit_bytes, reservation))


async def _read(receive: Receive, limit_bytes: int, reservation: Reservation) -> bytes:
    message = await receive()
    body = message.get("body", b"")
    _count(message, len(body), limit_bytes, reservation)
    if not message.get("more_body", False):
        return bytes(body)
    # One piece of memory that grows and is not copied at the end. To join many takes the event loop 36 ms for the largest body, and
    # small ones stay with the process when they are let go of.
    data = io.BytesIO()
    data.write(body)
    while message.get("more_body", False):
        message = await receive()
        piece = message.get("body", b"")
        _count(message, data.tell() + len(piece), limit_bytes, reservation)
        data.write(piece)
    return data.getvalue()


def _count(message: Message, size: int, limit_bytes: int, reservation: Reservation) -> None:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    if size > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    reservation.resize(size)


async def _unpack(data: bytes, limit_bytes: int, reservation: Reservation) -> bytes:
    """Return `data` decompressed. The memory for that is counted before it is taken."""
    size = await _packing.run(lambda check: unpacked_size(data, limit_bytes, check))
    reservation.resize(len(data) + size)
    unpacked = await _packing.run(lambda check: unpack(data, size, limit_bytes, check))
    reservation.resize(len(unpacked))
    return unpacked


def unpacked_size(data: bytes, limit_bytes: int, check: Check = no_check) -> int:
    """Return the size of what the gzip or zlib stream `data` holds, as gzip tells it at its end, or as is found without keeping anything.

    Raises BodyTooLarge when it is over the limit, InvalidRequest.
    """
    told = int.from_bytes(data[-4:], "little")
    if data.startswith(_GZIP) and told <= min(limit_bytes, len(data) * _MOST_RATIO):
        return told
    size = 0
    for piece in _pieces(data):
        check()
        size += len(piece)
        if size > limit_bytes:
            raise BodyTooLarge(limit_bytes)
    return size


def unpack(data: bytes, size: int, limit_bytes: int, check: Check = no_check) -> bytes:
    """Return the `size` bytes that the gzip or zlib stream `data` holds; of more that it holds, none is kept.

    Raises BodyTooLarge when it is over the limit, InvalidRequest.
    """
    unpacked: list[bytes] = []
    found = 0
    for piece in _pieces(data):
        check()
        found += len(piece)
        if found > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        if found <= size:
            unpacked.append(piece)
    return b"".join(unpacked)


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yield what `data` holds. What is not unpacked at once is copied, so it goes in by pieces, too."""
    unpacker = zlib.decompressobj(_AUTODETECT)
    rest = memoryview(data)
    while rest and not unpacker.eof:
        yield from _unpacked(unpacker, rest[:_PIECE_BYTES])
        rest = rest[_PIECE_BYTES:]
    if not unpacker.eof or unpacker.unused_data or rest:
        raise InvalidRequest("The compressed body is truncated, or more follows after its end.")


def _unpacked(unpacker: zlib._Decompress, rest: bytes | memoryview) -> Iterator[bytes]:
    full = True
    while not unpacker.eof and (rest or full):  # a full piece: more may be ready
        try:
            piece = unpacker.decompress(rest, _UNPACKED_PIECE_BYTES)
        except zlib.error as error:
            raise InvalidRequest(_NOT_PACKED) from error
        rest, full = unpacker.unconsumed_tail, len(piece) == _UNPACKED_PIECE_BYTES
        yield piece


def accepted_compression(accept_encoding: str, size: int) -> str | None:
    """Return the compression for a response of `size` bytes that a client with this Accept-Encoding header wants, if any."""
    if size < _MIN_COMPRESSED_BYTES:
        return None
    entries = [entry.replace(" ", "").lower().split(";") for entry in accept_encoding.split(",")]
    accepted = {name for name, *parameters in entries if "q=0" not in parameters}
    return next((name for name in ("gzip", "deflate") if name in accepted), None)


async def compressed(data: bytes, encoding: str) -> bytes:
    """Return `data` compressed for the content coding "gzip" or "deflate", quickly rather than tightly."""
    return await _packing.run(lambda check: _pack(data, encoding, check))


def _pack(data: bytes, encoding: str, check: Check) -> bytes:
    packer = zlib.compressobj(1, wbits=_WINDOWS[encoding])
    view, packed = memoryview(data), []
    for start in range(0, len(data), _UNPACKED_PIECE_BYTES):
        check()
        packed.append(packer.compress(view[start : start + _UNPACKED_PIECE_BYTES]))
    return b"".join([*packed, packer.flush()])
