"""Requests that are made to cost more than they should, of some hundred kilobytes each; the same kinds as in benchmarks/hostile."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from benchmarks.harness.http_wire import request_bytes
from benchmarks.studies.hostile.grpc_attacks import hostile_messages
from benchmarks.studies.hostile.image_attacks import hostile_files, hostile_forms, many_scans
from benchmarks.studies.hostile.json_attacks import hostile_bodies
from benchmarks.studies.soak.requests import Case, GrpcCase, HttpCase, Make

_BYTES = 200_000
_SIDE = 512
_REFUSED: frozenset[int | str] = frozenset((400, 413, 429))
_ANY = _REFUSED | {200}
_CLOSED: frozenset[int | str] = frozenset((400, 414, 431, "lost"))


def hostile_cases(task: str) -> Iterator[Case]:
    """Yield them for a model `task`."""
    infer = f"/v2/models/{task}/infer"
    for name, body in hostile_bodies(_BYTES):
        yield HttpCase(f"hostile JSON, {name}", _post(infer, body), _REFUSED)
        yield HttpCase(f"hostile JSON, {name}, gzip", _post(infer, gzip.compress(body), "Content-Encoding: gzip"), _REFUSED)
    for name, file in hostile_files(_SIDE):
        yield HttpCase(f"hostile picture, {name}", _post("/predict", file), _ANY)
    yield HttpCase("hostile picture, many scans", _post("/predict", many_scans(2 * _SIDE, 3000)), _REFUSED)
    for name, body in hostile_forms(_BYTES):
        yield HttpCase(f"hostile form, {name}", _post("/predict", body, "Content-Type: multipart/form-data; boundary=b"), _ANY)
    for name, message in hostile_messages(task, _BYTES):
        yield GrpcCase(
            f"hostile gRPC, {name}",
            "ModelInfer",
            _always(message),
            frozenset(("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "NOT_FOUND")),
        )
    line = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n"
    yield HttpCase("hostile head, a long header", _always(line + b"X-A: " + b"a" * _BYTES + b"\r\n\r\n"), _CLOSED)
    yield HttpCase("hostile head, many headers", _always(line + b"A: b\r\n" * (_BYTES // 6) + b"\r\n"), _CLOSED)
    yield HttpCase("hostile head, a long URL", _always(b"GET /" + b"a" * _BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n"), _CLOSED)
    yield HttpCase("hostile, requests in a row", _always((line + b"\r\n") * 2000), frozenset())
    yield HttpCase("hostile, half a head", _always(line), frozenset())


def _post(path: str, body: bytes, *headers: str) -> Make:
    return _always(request_bytes("POST", path, *headers, body=body))


def _always(request: bytes) -> Make:
    return lambda number: request
