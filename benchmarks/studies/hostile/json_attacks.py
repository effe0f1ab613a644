"""Attacks on the reader of JSON, plain and compressed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

from benchmarks.harness.http_wire import request_bytes
from benchmarks.studies.hostile.attack import Attack, promised
from benchmarks.studies.hostile.send import at_once, http

_REFUSED = frozenset(("400", "413"))
_HEAD = '{"inputs":[{"name":"image","datatype":"%s","shape":[%d],"data":'


def json_attacks(task: str, size: int) -> Iterator[Attack]:
    """Yield attacks with bodies of about `size` bytes for a model `task`, all of them to be refused."""
    for name, body in hostile_bodies(size):
        yield Attack(f"JSON, {name}", _infer(task, body), _REFUSED, promised(text=len(body)))
    for name, body in hostile_bodies(size):
        if name in ("nested lists", "many outputs", "strings of two letters"):
            packed = gzip.compress(body, 6)
            yield Attack(f"JSON, {name}, gzip", _infer(task, packed, True), _REFUSED, promised(text=len(body)))


def compression_attacks(task: str, size: int, most: int) -> Iterator[Attack]:
    """Yield attacks with compressed bodies. size: that they unpack to. most: the limit of a body in bytes."""
    zeros = gzip.compress(bytes(size), 9)
    yield Attack("zeros", _infer(task, zeros, True), _REFUSED, promised(text=size))
    yield Attack("eight times zeros", at_once(8, _infer(task, zeros, True)), _REFUSED, 8 * promised(text=size))
    yield Attack(
        "more than the limit", _infer(task, gzip.compress(bytes(3 * most), 9), True), frozenset(("413",)), promised(text=0)
    )
    yield Attack("packed twice", _infer(task, gzip.compress(zeros), True), _REFUSED, promised(body=len(zeros)))
    many = gzip.compress(b"") * (size // 200)
    yield Attack("many streams", _infer(task, many, True), _REFUSED, promised(body=len(many)))
    yield Attack("cut off", _infer(task, zeros[:-4], True), _REFUSED, promised(text=size))


def _infer(task: str, body: bytes, packed: bool = False):  # type: ignore[no-untyped-def]
    headers = ("Content-Encoding: gzip",) if packed else ()
    return http(request_bytes("POST", f"/v2/models/{task}/infer", "Connection: close", *headers, body=body))


def hostile_bodies(size: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and JSON of about `size` bytes, all of which the tiny tasks refuse."""

    def tensor(data: str, datatype: str = "FP32", count: int = 1) -> bytes:
        return (_HEAD % (datatype, count) + data + "}]}").encode()

    half = size // 2
    shorts = size // 6
    yield "a long string among short ones", tensor(f'["{"a" * half}"' + ',""' * shorts + "]", "FP32", shorts + 1)
    unit = "[" * 290 + ",".join(["1"] * 33_000) + "]" * 290
    yield "nested lists", tensor("[" + ",".join([unit] * max(1, size // len(unit))) + "]")
    yield "brackets", b"[" * size
    yield "levels", tensor("[" * half + "]" * half)
    yield "equal keys", b"{" + b",".join([b'"inputs":1'] * (size // 11)) + b"}"
    yield "different keys", json.dumps({f"key-{number}": number for number in range(size // 20)}).encode()
    yield "half surrogates", tensor("[" + ",".join(['"\\ud800"'] * (size // 9)) + "]", "BYTES", size // 9)
    yield "strings of two letters", tensor("[" + ",".join(['"ab"'] * (size // 5)) + "]", "BYTES", size // 5)
    yield "empty strings", tensor("[" + ",".join(['""'] * (size // 3)) + "]", "BYTES", size // 3)
    yield "a number of many digits", tensor("[" + "9" * size + "]")
    yield "numbers too large", tensor("[" + ",".join(["1e999"] * (size // 6)) + "]", "FP64", size // 6)
    yield "integers of 300 digits", tensor("[" + ",".join(["9" * 300] * (size // 301)) + "]", "INT64", size // 301)
    yield "one too many", tensor("[" + ",".join(["1"] * half) + "]", "FP32", half - 1)
    yield "as many as said", tensor("[" + ",".join(["1"] * half) + "]", "FP32", half)
    yield "objects for numbers", tensor("[" + ",".join(["{}"] * (size // 3)) + "]", "FP32", size // 3)
    yield "nothing for numbers", tensor("[" + ",".join(["null"] * (size // 5)) + "]", "FP32", size // 5)
    yield "many inputs", b'{"inputs":[' + b",".join([b"{}"] * (size // 3)) + b"]}"
    yield "many outputs", b'{"inputs":[],"outputs":[' + b",".join([b'{"name":"a"}'] * (size // 13)) + b"]}"
    yield "a long shape", b'{"inputs":[{"name":"a","datatype":"FP32","shape":[' + b",".join([b"1"] * half) + b'],"data":[]}]}'
    yield "a long name", b'{"inputs":[{"name":"' + b"a" * size + b'","datatype":"FP32","shape":[1],"data":[1]}]}'
    yield (
        "parameters",
        b'{"inputs":[],"parameters":' + json.dumps({f"p{number}": "x" for number in range(size // 12)}).encode() + b"}",
    )
    yield "blanks", b" " * size + b"{}"
    yield (
        "escapes in a name",
        b'{"inputs":[{"name":"' + b"\\u0061" * (size // 6) + b'","datatype":"FP32","shape":[1],"data":[1]}]}',
    )
