"""Keeps configurations as they were parsed, so that the next process need not: to read the protobuf takes a tenth of the time, or less.

One file for each repository, named by a hash of its path; what is in it is found by the hash of the text, whatever has changed since.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from contract.private_folder import is_private, make_private_folder
from contract.repository.config import ModelConfig, parse_text
from contract.repository.config.triton_protobuf import model_config_pb2
from contract.repository.files import decode

log = logging.getLogger(__name__)
_FORMAT = b"espalier's parsed configurations, 1\n"  # to be raised when what a file holds changes
_DIGEST_BYTES = hashlib.sha256().digest_size
_LENGTH_BYTES = 4
_MOST_BYTES = 256 << 20
_MOST_FILES = 32


class ParsedConfigs:
    """The configurations of the repository at `path`. folder: where they are kept, made when it is needed; None: nowhere.

    Nothing that fails here is an error: texts are then parsed. Nothing is kept where others could write, nor believed.
    """

    def __init__(self, folder: Path | None, path: Path) -> None:
        name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
        self._file = None if folder is None else folder / f"{name}.bin"
        self._kept: Mapping[bytes, bytes] | None = None  # until it is read
        self._used: dict[bytes, bytes] | None = {}  # until `keep`

    def parse(self, text: bytes, where: str) -> Any:
        """Return the ModelConfig that `text` describes, a new one. Raises RepositoryError naming `where`."""
        if self._file is None:
            return parse_text(decode(text, where), where)
        if self._kept is None:
            self._kept = _read(self._file)
        digest = hashlib.sha256(text).digest()
        kept = self._kept.get(digest)
        config = _from_bytes(kept)
        if config is None:
            config = parse_text(decode(text, where), where)
            kept = config.SerializeToString()
        if self._used is not None and kept is not None:
            self._used[digest] = kept
        return config

    def keep(self) -> None:
        """Keep what has been asked for, unless that is all known; once: what changes later is parsed again by the next process."""
        used, self._used = self._used, None
        if self._file is None or not used:
            return
        if self._kept is not None and not used.keys() <= self._kept.keys():
            _write(self._file, used)
        else:
            with suppress(OSError):
                os.utime(self._file)  # used most recently
        self._kept = {}  # what changes is in none of it


def _from_bytes(data: bytes | None) -> Any:
    """Return the ModelConfig in `data`, None where there is none."""
    try:
        return None if data is None else ModelConfig.FromString(data)
    except DecodeError:
        return None


def _head() -> bytes:
    """Return how a file begins: with what decides what its bytes mean."""
    return _FORMAT + hashlib.sha256(model_config_pb2.DESCRIPTOR.serialized_pb).digest()


def _read(file: Path) -> dict[bytes, bytes]:
    """Return the configurations in `file`, protobuf by the text's SHA-256; none, which is logged, where it is damaged."""
    try:
        if not is_private(file.parent) or file.stat().st_size > _MOST_BYTES:
            return {}
        data = file.read_bytes()
    except OSError:
        return {}
    body, checksum = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != checksum:
        log.warning("%s is damaged and not used: the configurations are parsed again.", file)
        return {}
    head = _head()
    return dict(_entries(body, len(head))) if body.startswith(head) else {}


def _entries(body: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    while start < len(body):
        begin = start + _DIGEST_BYTES + _LENGTH_BYTES
        end = begin + int.from_bytes(body[begin - _LENGTH_BYTES : begin], "big")
        yield body[start : start + _DIGEST_BYTES], body[begin:end]
        start = end


def _write(file: Path, configs: Mapping[bytes, bytes]) -> None:
    """Replace `file` by `configs`, aside and at once; other repositories' files go where there are too many."""
    pieces = [_head()]
    for digest, data in configs.items():
        pieces += [digest, len(data).to_bytes(_LENGTH_BYTES, "big"), data]
    body = b"".join(pieces)
    aside = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(8)}")
    try:
        if not make_private_folder(file.parent):
            return
        with aside.open("xb") as stream:
            stream.write(body + hashlib.sha256(body).digest())
        aside.replace(file)
        _prune(file.parent)
    except OSError:
        with suppress(OSError):
            aside.unlink()


def _prune(folder: Path) -> None:
    files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[_MOST_FILES:]:
        file.unlink(missing_ok=True)
