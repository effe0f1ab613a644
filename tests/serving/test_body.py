"""Compressed bodies: unpacked whole or refused, and bombs without unpacking them into memory."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib

import pytest

from serving.errors import BodyTooLarge, InvalidRequest
from serving.protocol.body import unpack, unpacked_size


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
