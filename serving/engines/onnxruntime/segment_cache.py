"""Keeps each segment on disk as ONNX Runtime optimised it for this machine, so that it opens in milliseconds.

    FOLDER/<key>/   one segment: model.onnx (the optimised graph), weights.bin (mapped, not read); sessions/entries.py
    FOLDER/weights/ what several entries have (shared_weights.py); of such an entry, <sha256>.bin beside or instead of weights.bin

The key is a hash of everything that the optimised form depends on: the bytes of the segment's own model.onnx, the version and build
of ONNX Runtime, the processor and the provider. ONNX Runtime maps the weights, so that sessions and processes share them; matrices
that it packs for speed (those of Gemm and MatMul) it copies into memory of its own, but those that segments of a repository share.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import onnxruntime as ort

from contract.private_folder import make_private_folder
from contract.user_folders import cache_folder
from serving.engines.onnxruntime.session import open_session
from serving.engines.onnxruntime.shared_weights import SAVE_PACKED, WeightPool
from serving.engines.sessions.entries import POOL, Entries, Entry, digest_with, file_digests, linked_files
from serving.engines.sessions.entries import processor as processor
from serving.engines.sessions.file_digests import FileDigests
from serving.engines.sessions.runtime import DEFAULT_CACHE_BYTES
from serving.process.memory import malloc_trim

# Below, opening the model itself takes as long: a linear probe of 0.8 MB 9 ms either way, but 30 ms and more to make its entry.
_DEFAULT_MIN_BYTES = 2_000_000
_FORMAT = 1  # to be raised when what an entry holds changes
_MODEL, _WEIGHTS = "model.onnx", "weights.bin"
_SOURCE = "source.onnx"  # while an entry is being made
_MIN_EXTERNAL_BYTES = 1024  # smaller tensors stay in the graph, which constant folding and shape inference read

MakeOptions = Callable[[], ort.SessionOptions]


def default_cache_folder() -> Path:
    """Return the folder for this user's segments, made now. Raises NoSegmentCache, which says why there is none."""
    base = cache_folder()
    if base is None:
        raise NoSegmentCache("this user has no home folder")
    folder = base / "segments"
    try:
        if not make_private_folder(folder):
            raise NoSegmentCache(f"others may write to {folder}")
    except OSError as error:
        raise NoSegmentCache(f"{folder} cannot be made ({error.strerror})") from error
    if not os.access(folder, os.W_OK):
        raise NoSegmentCache(f"{folder} cannot be written")
    return folder


class NoSegmentCache(Exception):
    """There is no place for this user's segments, and why."""


class SegmentCache:
    """The optimised segments in `folder`, of `limit_bytes` at most: the ones used least recently go first.

    min_bytes: a smaller model is not cached. record_hashes: whether a file that another process has hashed since the machine started,
    and that has not been written since, is believed to be the same. Nothing that fails here is an error: a segment that cannot be
    cached is opened from its own file. Safe to use from several threads and processes.
    """

    def __init__(
        self,
        folder: Path,
        providers: Sequence[str],
        limit_bytes: int = DEFAULT_CACHE_BYTES,
        min_bytes: int = _DEFAULT_MIN_BYTES,
        record_hashes: bool = True,
    ) -> None:
        self._folder = folder
        self._providers = tuple(providers)
        self._limit_bytes = limit_bytes
        self._min_bytes = min_bytes
        self._digests = file_digests(folder, record_hashes)
        self._pool = WeightPool(folder / POOL, self._digests)
        self._entries = Entries(folder, limit_bytes, self._digests, self._checksum)
        self._machine = {"onnxruntime": ort.__version__, "build": ort.get_build_info(), "cpu": processor()}

    def open(self, model: Path, make_options: MakeOptions) -> ort.InferenceSession | None:
        """Return a session of the ONNX file `model` from its cached form, which is made if need be; None: it has none.

        make_options: fresh session options for every call. None for a model with external data that segments do not share (it may be
        larger than what was hashed), one too small or larger than the cache, one that ONNX Runtime refuses, and where the folder cannot
        be used.
        """
        with suppress(OSError):
            files = linked_files(model)
            if files is None:
                return None
            is_right_size = self._min_bytes <= sum(file.stat().st_size for file in (model, *files)) <= self._limit_bytes
            if not is_right_size or not make_private_folder(self._folder):
                return None
            digest = digest_with(self._digests, model, files)
            entry = self._entry(digest)
            return self._open(entry, make_options) or self._remake(entry, model, digest, make_options)
        return None

    def _entry(self, source: str) -> Entry:
        return self._entries.entry({"format": _FORMAT, "source": source, "providers": list(self._providers), **self._machine})

    def _open(self, entry: Entry, make_options: MakeOptions) -> ort.InferenceSession | None:
        try:
            self._entries.verify(entry)
            options = make_options()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimised
            weights_in = str(entry.folder.resolve())
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", weights_in)
            session = open_session((entry.folder / _MODEL).read_bytes(), options, self._providers)
        except Exception:  # ONNX Runtime's exceptions have no common base, and another process may delete the entry meanwhile
            return None
        self._entries.used(entry)
        if self._pool.is_used_by(entry.folder):
            malloc_trim()  # what was packed to be compared with what the entry brings
        return session

    def _checksum(self, file: Path) -> str:
        return self._pool.known(file) or self._digests.of(file)

    def _remake(self, entry: Entry, model: Path, digest: str, make_options: MakeOptions) -> ort.InferenceSession | None:
        if not self._entries.make(entry, lambda work: self._write(work, model, digest, make_options)):
            return None
        malloc_trim()
        session = self._open(entry, make_options)
        self._entries.prune()
        return session

    def _write(self, work: Path, model: Path, digest: str, make_options: MakeOptions) -> bool:
        """Have ONNX Runtime write the optimised form into `work`; say whether it did.

        It reads a copy that nobody else writes. It could read the bytes that were hashed from memory, too, but would parse them under
        Python's lock: 35 ms for 37 MB, in which no request is answered; from a file, 5 ms.
        """
        files = linked_files(model)
        if files is None:
            return False
        source = self._source(work, model, digest, files)
        if source is None:
            return False  # replaced since it was hashed
        options = make_options()
        options.optimized_model_filepath = str(work / _MODEL)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
        minimum = str(_MIN_EXTERNAL_BYTES)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", minimum)
        if files:
            options.add_session_config_entry(SAVE_PACKED, "1")
        try:
            # Other external data would have to lie beside the copy, where there is none: what was hashed must be the whole model.
            open_session(source, options, self._providers)
        except Exception:  # as above; opening the model's own file will say what is wrong with it
            return False
        if not files:
            source.unlink()
            return True
        self._pool.share(work / _MODEL, work / _WEIGHTS)
        return digest_with(self._digests, model, files) == digest  # nothing was replaced meanwhile

    def _source(self, work: Path, model: Path, digest: str, files: list[Path]) -> Path | None:
        """Return the file to be optimised: a copy of `model`, or itself, where copies of the data `files` would cost too much."""
        if files:
            return model
        source = work / _SOURCE
        shutil.copyfile(model, source)
        return source if self._digests.of(source) == digest else None


class EngineCache:
    """Where TensorRT keeps the engines that it compiles, which takes minutes: a folder for each model in `folder`, named by its hash.

    TensorRT's provider names an engine by the model's file name and the names of its tensors, not by its weights
    (https://github.com/microsoft/onnxruntime/issues/6455): two tasks that were tuned in the same block would get the same engine.
    What no model needs any more stays there. Safe to use from several threads.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests = FileDigests()

    def options(self, model: Path) -> Mapping[str, str]:
        """Return the provider's options for the ONNX file `model`: to keep its engine; none where that cannot be done.

        None for a model with external data that segments do not share, and where others could write engines into the folder.
        """
        with suppress(OSError):
            files = linked_files(model)
            if files is not None and make_private_folder(self._folder):
                engines = self._folder / digest_with(self._digests, model, files)
                engines.mkdir(mode=0o700, exist_ok=True)
                # Precision stays what the model says.
                return {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engines), "trt_fp16_enable": "0"}
        return {}
