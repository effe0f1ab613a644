"""All attacks, in the sizes of a scale."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.studies.hostile.answer_attacks import answer_attacks
from benchmarks.studies.hostile.attack import MESSAGE_BYTES, Attack
from benchmarks.studies.hostile.grpc_attacks import grpc_attacks
from benchmarks.studies.hostile.http_attacks import http_attacks
from benchmarks.studies.hostile.image_attacks import form_attacks, image_attacks
from benchmarks.studies.hostile.json_attacks import compression_attacks, json_attacks
from contract.repository import Repository
from serving.protocol.front_end import MAX_BODY_BYTES

_HEAD_BYTES = 24 << 20  # of what has no body
_SIDE = 7000  # 49 million pixels


def attacks(repository: Repository, scale: float = 1.0) -> Iterator[Attack]:
    """Yield all for the tasks of `repository`. scale: of their sizes; with 1 they come close to the limits, or go beyond them."""
    task = next(iter(repository.tasks))
    size = int(0.9 * scale * MAX_BODY_BYTES)
    yield from http_attacks(task, int(scale * _HEAD_BYTES))
    yield from json_attacks(task, size)
    yield from compression_attacks(task, size, MAX_BODY_BYTES)
    yield from grpc_attacks(task, int(0.9 * scale * MESSAGE_BYTES))
    yield from image_attacks(int(_SIDE * scale**0.5) // 8 * 8)
    yield from form_attacks(size)
    yield from answer_attacks(repository, size // 4)
