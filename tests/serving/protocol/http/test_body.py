"""Compressed bodies: unpacked whole or refused, and bombs without unpacking them into memory."""

from __future__ import annotations

import asyncio
import gzip
import random
import threading
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from contract.errors import InvalidRequest
from serving.errors import BodyTooLarge, QueueFull
from serving.protocol.http.body import compressed, read_body, unpack, unpacked_size
from serving.protocol.memory_budget import MemoryBudget


def decompress(data: bytes, limit: int) -> bytes:
    return unpack(data, unpacked_size(data, limit), limit)


SIZES = (1, 1000, 65_535, 65_536, 65_537, 200_000)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["zeros", "noise", "text"])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_what_fits_is_unpacked_and_one_byte_more_is_refused(pack: object, kind: str, size: int) -> None:
    noise = random.Random(size)
    raw = {"zeros": bytes(size), "noise": noise.randbytes(size), "text": (noise.randbytes(7) * size)[:size]}[kind]
    packed = pack(raw)  # type: ignore[operator]
    for limit in (size, 2 * size, 10**9):
        assert decompress(packed, limit) == raw
    with pytest.raises(BodyTooLarge):
        decompress(packed, size - 1)
    for wrong in (packed[:-1], packed + b"x", packed + bytes(100_000)):
        with pytest.raises(InvalidRequest):
            decompress(wrong, size)


def test_a_bomb_is_refused_without_the_memory_that_it_wants() -> None:
    bomb = gzip.compress(bytes(20_000_000), 1)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            decompress(bomb, 10_000_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def sent(body: bytes, *later: dict[str, object]) -> Callable[[], Awaitable[Any]]:
    """Return what receives `body` whole, then `later`, and then waits."""
    messages = [{"type": "http.request", "body": body}, *later]

    async def receive() -> Any:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    return receive


ZEROS = bytes(20_000_000)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_what_unpacks_to_more_than_there_is_room_for_is_refused_before_it_takes_any(pack: Callable[[bytes], bytes]) -> None:
    pending, packed = MemoryBudget(15_000_000), pack(ZEROS)
    with pending.reserve() as other, pending.reserve() as hold:
        other.resize(1)
        tracemalloc.start()
        try:
            with pytest.raises(QueueFull):
                asyncio.run(read_body({"content-encoding": "gzip"}, sent(packed), 10**9, hold))
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


def test_what_tells_a_size_and_holds_more_is_not_kept() -> None:
    lie = gzip.compress(ZEROS)[:-4] + (1000).to_bytes(4, "little")
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="does not decompress"):
            decompress(lie, 10**9)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_nobody_unpacks_for_a_client_that_has_gone() -> None:
    packed = zlib.compress(bytes(100_000_000), 1)
    with pytest.raises(ClientDisconnect):
        asyncio.run(read_body({"content-encoding": "deflate"}, sent(packed, {"type": "http.disconnect"}), 10**9))
    for work in (unpacked_size, lambda data, limit, check: unpack(data, limit, limit, check)):
        steps = iter(range(5))
        with pytest.raises(StopIteration):
            work(packed, 10**9, steps.__next__)


def test_what_unpacks_and_packs_leaves_other_threads_to_others() -> None:
    def threads(name: str) -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name.startswith(name)}

    others = threads("aside")
    assert asyncio.run(read_body({"content-encoding": "gzip"}, sent(gzip.compress(b"abc")), 10**9)) == b"abc"
    asyncio.run(compressed(b"abc", "gzip"))
    assert threads("aside") == others
    assert 1 <= len(threads("packing")) <= 2


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("size", [0, 1, 262_144, 600_000])
def test_what_is_compressed_is_what_it_was(encoding: str, size: int) -> None:
    raw = random.Random(size).randbytes(size)
    packed = asyncio.run(compressed(raw, encoding))
    assert (gzip.decompress if encoding == "gzip" else zlib.decompress)(packed) == raw
