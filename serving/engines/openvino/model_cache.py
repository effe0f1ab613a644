"""Keeps segments on disk as OpenVINO reads them fastest: in its own format, whose weights it maps.

    FOLDER/<key>/   one segment: model.xml, model.bin (mapped), manifest.json; see sessions/entries.py

An entry serves both precisions and any number of threads. To read and compile a ResNet-50's takes 0.14 s of the processor's time, where
the ONNX file takes 0.35 s; and its floats are pages of the file, which sessions and processes share. What OpenVINO compiles for this
processor, it makes of them at every opening: it exports that, too, but with a copy of the floats that it reads into memory.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from contract.private_folder import make_private_folder
from serving.engines.openvino.package import core, openvino, version
from serving.engines.sessions.entries import Entries, Entry, digest_with, file_digests, linked_files
from serving.engines.sessions.runtime import DEFAULT_CACHE_BYTES

# Smaller ones take as long from their own file.
_DEFAULT_MIN_BYTES = 2_000_000
_FORMAT = 1  # to be raised when what an entry holds changes
_MODEL = "model.xml"


class ModelCache:
    """The segments in `folder`, which is that of ONNX Runtime's, too; its limit is for both together.

    min_bytes: a smaller model is not cached. record_hashes: as of SessionStoreOptions. Nothing that fails here is an error: what cannot be
    cached is read from its own file. Safe to use from several threads and processes.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: int = DEFAULT_CACHE_BYTES,
        min_bytes: int = _DEFAULT_MIN_BYTES,
        record_hashes: bool = True,
    ) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._min_bytes = min_bytes
        self._digests = file_digests(folder, record_hashes)
        self._entries = Entries(folder, limit_bytes, self._digests)

    def read(self, model: Path) -> Any | None:
        """Return OpenVINO's model of the ONNX file `model` from its entry, which is made if need be; None: it has none.

        None also for a model with weights beside it, which OpenVINO maps where they are: an entry would be a second copy.
        """
        with suppress(OSError):
            if linked_files(model) != [] or not self._min_bytes <= model.stat().st_size <= self._limit_bytes:
                return None
            if not make_private_folder(self._folder):
                return None
            digest = digest_with(self._digests, model, [])
            entry = self._entries.entry({"format": _FORMAT, "source": digest, "openvino": version()})
            return self._read(entry) or self._remake(entry, model, digest)
        return None

    def _read(self, entry: Entry) -> Any | None:
        try:
            self._entries.verify(entry)
            model = core().read_model(entry.folder / _MODEL)
        except Exception:  # OpenVINO's are RuntimeErrors, and another process may delete the entry meanwhile
            return None
        self._entries.used(entry)
        return model

    def _remake(self, entry: Entry, model: Path, digest: str) -> Any | None:
        def write(work: Path) -> bool:
            try:
                openvino().save_model(core().read_model(model), work / _MODEL, compress_to_fp16=False)
            except RuntimeError:
                return False  # reading the model's own file will say what is wrong with it
            return self._digests.of(model) == digest  # it was not replaced meanwhile

        if not self._entries.make(entry, write):
            return None
        found = self._read(entry)
        self._entries.prune()
        return found
