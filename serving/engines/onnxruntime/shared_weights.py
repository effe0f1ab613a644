"""Large weights of optimised segments, kept once for all entries of the segment cache that hold them, and so held in memory once.

    FOLDER/weights/<sha256>.bin   one weight: its bytes, and behind them, from the next page on, the same as ONNX Runtime packs it
    FOLDER/<key>/<sha256>.bin     a hard link of it, in each entry that uses it

ONNX Runtime maps what an entry says is external, and pages of one file are one page of memory, whoever maps them. Matrices that it packs
for speed (those of Gemm and MatMul), it otherwise copies into memory of each session; packed ones that the entry brings it maps, too,
if they are what it would have packed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.private_folder import make_private_folder
from serving.engines.sessions.file_digests import FileDigests

if TYPE_CHECKING:
    import onnx

SAVE_PACKED = "session.save_external_prepacked_constant_initializers"
_POOLED = re.compile(r"[0-9a-f]{64}\.bin")
_SMALLEST = 65_536  # bytes; what is smaller stays in the entry's own file
_PAGE = 4096
_State = tuple[int, ...]
_LOCATION, _OFFSET, _LENGTH, _PACKED = "location", "offset", "length", "prepacked"
_BLOB = re.compile(r"(\d+);(\d+)((?:;[^|]*)?)")


class WeightPool:
    """The weights in `folder`. Several processes may use it; a file that is damaged there is replaced."""

    def __init__(self, folder: Path, digests: FileDigests) -> None:
        self.folder = folder
        self._digests = digests
        self._known: dict[str, _State] = {}  # of what this process has hashed, by name

    def known(self, file: Path) -> str:
        """Return the SHA-256 of a link of a weight that this process has hashed; "" of others. Links made since say nothing of it."""
        state = self._known.get(file.name)
        return file.stem if state is not None and state == _state(file) else ""

    def share(self, model: Path, weights: Path) -> None:
        """Take the large weights of the optimised `model` out of the file `weights` beside it: they come by links of the pool's.

        Raises OSError, ValueError for what ONNX Runtime does not write.
        """
        import onnx

        make_private_folder(self.folder)
        proto = onnx.load(model, load_external_data=False)
        whole, rest = memoryview(weights.read_bytes()), bytearray()
        for tensor in proto.graph.initializer:
            said = {entry.key: entry for entry in tensor.external_data}
            if said.get(_LOCATION) is None or said[_LOCATION].value != weights.name:
                continue
            content = _content(whole, said)
            if len(content) >= _SMALLEST:
                said[_LOCATION].value = self._put(model.parent, content)
                start = 0
            else:
                rest += bytes(-len(rest) % _PAGE)
                start = len(rest)
                rest += content
            _move(said, start)
        weights.unlink()
        if rest:
            weights.write_bytes(rest)
        model.unlink()
        model.write_bytes(proto.SerializeToString())

    def is_used_by(self, entry: Path) -> bool:
        """Return whether the entry in that folder has weights of the pool, or such as could be in it."""
        with suppress(OSError):
            return any(_POOLED.fullmatch(file.name) for file in entry.iterdir())
        return False

    def _put(self, folder: Path, content: bytes) -> str:
        """Let the weight `content` stand in `folder`; return the name of its file."""
        digest = hashlib.sha256(content).hexdigest()
        name = f"{digest}.bin"
        target, kept = folder / name, self.folder / name
        if target.exists():
            return name
        with suppress(OSError):
            if (self.known(kept) or self._digests.of(kept)) == digest:
                os.link(kept, target)
                self._known[name] = _state(kept)
                return name
        target.write_bytes(content)
        target.chmod(0o400)
        self._known[name] = _state(target)
        with suppress(OSError):  # others may be as fast, or nothing can be linked: then the entry has it alone
            kept.unlink(missing_ok=True)
            os.link(target, kept)
        return name


def _state(file: Path) -> _State:
    """Return what changes when somebody writes `file`, which nobody may."""
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode


def _content(whole: memoryview, said: Mapping[str, Any]) -> bytes:
    """Return the bytes of a tensor, and those of its packed forms, each from a page on."""
    start, length = int(said[_OFFSET].value), int(said[_LENGTH].value)
    content = bytearray(whole[start : start + length])
    for entry in _packed(said):
        for offset, size, _ in _blobs(entry):
            content += bytes(-len(content) % _PAGE)
            content += whole[offset : offset + size]
    return bytes(content)


def _move(said: Mapping[str, Any], start: int) -> None:
    """Say that a tensor begins at `start` of its file, and its packed forms behind it as `_content` puts them."""
    said[_OFFSET].value = str(start)
    end = int(said[_LENGTH].value)
    for entry in _packed(said):
        places = []
        for _, size, more in _blobs(entry):
            end += -end % _PAGE
            places.append(f"{start + end};{size}{more}")
            end += size
        entry.value = "|".join([entry.value.split("|", 1)[0], *places])


def _packed(said: Mapping[str, onnx.StringStringEntryProto]) -> list[Any]:
    return [said[key] for key in sorted(said) if key.startswith(_PACKED)]


def _blobs(entry: Any) -> Iterator[tuple[int, int, str]]:
    """Yield offset and size of each part of a packed form, and what else is said of it. Raises ValueError."""
    for text in entry.value.split("|")[1:]:
        match = _BLOB.fullmatch(text)
        if match is None:
            raise ValueError(f"a packed weight is at {text!r}")
        yield int(match[1]), int(match[2]), match[3]
