"""Compressed bodies, in both directions."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import InvalidRequest
from serving.errors import BodyTooLarge
from serving.protocol.http.body import accepted_compression, compressed, unpack, unpacked_size


@settings(max_examples=50)
@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_compression_there_and_back_within_the_limit(data: bytes, encoding: str) -> None:
    packed = asyncio.run(compressed(data, encoding))
    assert decompress(packed, len(data)) == data
    if data:
        with pytest.raises(BodyTooLarge):
            decompress(packed, len(data) - 1)


def decompress(data: bytes, limit: int) -> bytes:
    return unpack(data, unpacked_size(data, limit), limit)


def test_bad_compression_is_refused() -> None:
    for data in (b"plain", gzip.compress(b"abc")[:-2], zlib.compress(b"abc") + b"more"):
        with pytest.raises(InvalidRequest):
            decompress(data, 100)


@pytest.mark.parametrize(
    ("header", "size", "chosen"),
    [
        ("", 5000, None),
        ("gzip", 5000, "gzip"),
        ("gzip", 50, None),
        ("deflate", 5000, "deflate"),
        ("br, gzip;q=0, deflate ;q=0.5", 5000, "deflate"),
        ("identity", 5000, None),
    ],
)
def test_responses_are_compressed_only_for_clients_that_want_it(header: str, size: int, chosen: str | None) -> None:
    assert accepted_compression(header, size) == chosen
