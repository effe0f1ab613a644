"""ONNX Runtime as the session store's runtime: from a segment's file to a session that has been checked, and its runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import onnxruntime as ort

from contract.dtypes import Array
from contract.errors import EspalierError, RepositoryError
from contract.repository.model import Repository, Segment
from serving.engines.onnxruntime.bundle_session import BundleSession, open_bundle
from serving.engines.onnxruntime.plain import run_plain
from serving.engines.onnxruntime.providers import CPU, TENSORRT, choose_providers, device_of
from serving.engines.onnxruntime.segment_cache import EngineCache, MakeOptions, SegmentCache
from serving.engines.onnxruntime.session import (
    cannot_be_loaded,
    memory_of,
    open_session,
    run_on_device,
    run_session,
    segment_threads,
    session_options,
    warm_up,
)
from serving.engines.sessions.checks import cannot_be_read, check_outputs
from serving.engines.sessions.runtime import BundleFile, SegmentFile, SessionStoreOptions
from serving.engines.sessions.store import SessionStore
from serving.errors import EngineError
from serving.process.memory import malloc_trim

_LARGE_BYTES = 2_000_000  # what a smaller one has freed serves the next; to give it back took a third of a head's opening
AnySession: TypeAlias = ort.InferenceSession | BundleSession


def session_store(options: SessionStoreOptions) -> SessionStore[AnySession]:
    """Return a store of ONNX Runtime's sessions. Raises ValueError, ProviderUnavailable."""
    return SessionStore(OnnxRuntime(options), options.memory_limit_bytes)


class OnnxRuntime:
    """Opens segments from the cache where they have a form there, else from their own files.

    providers: ONNX Runtime's names of what computes, the first preferred. Raises ValueError for threads below 1, ProviderUnavailable.
    """

    def __init__(self, options: SessionStoreOptions) -> None:
        if options.threads is not None and options.threads < 1:
            raise ValueError(f"threads must be at least 1, not {options.threads}.")
        self.providers = choose_providers(options.provider)
        self._threads = options.threads
        self._spin = options.spin
        self._device = options.device or device_of(self.providers)
        self._cache: SegmentCache | None = None
        self._engines: EngineCache | None = None  # of the first provider, TensorRT
        if options.cache_folder is not None and self.on_cpu:
            limit, record = options.cache_limit_bytes, options.record_hashes
            self._cache = SegmentCache(options.cache_folder, self.providers, limit, record_hashes=record)
        elif options.cache_folder is not None and self.providers[0] == TENSORRT:
            self._engines = EngineCache(options.cache_folder.with_name("engines"))

    @property
    def name(self) -> str:
        """Return what this is and its version, as profiles of batch sizes name it."""
        return f"onnxruntime {ort.__version__}"

    @property
    def on_cpu(self) -> bool:
        """Return whether the CPU computes, and nothing else."""
        return self.providers == (CPU,)

    @property
    def shares_weights(self) -> bool:
        """Return whether sessions of one segment have their weights in common: those that come from the cache."""
        return self._cache is not None

    @property
    def rounding(self) -> float:
        """Return 0: it computes as the model says."""
        return 0.0

    def prepare(self, repository: Repository, files: Iterable[SegmentFile]) -> None:
        """Do nothing: all segments are run alike."""

    def open(self, file: SegmentFile, threads: int | None = None) -> AnySession:
        """Return a session that nobody has checked, with so many threads; None: as of the options. Raises RepositoryError.

        For another one of a segment that was checked: a check is a run, and somebody would wait for it.
        """
        return _open_bundle(file) if isinstance(file, BundleFile) else self._open_segment(file, threads)

    def _open_segment(self, file: SegmentFile, threads: int | None = None) -> ort.InferenceSession:
        make_options = partial(session_options, segment_threads(file.segment, threads or self._threads), self._spin)
        try:
            return file.kept.use(partial(self._open, make_options))
        except RepositoryError:
            raise
        except OSError as error:
            raise cannot_be_read(file.segment, error) from error
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise cannot_be_loaded(file.segment, file.kept.sizes) from error

    def load(self, file: SegmentFile) -> AnySession:
        """Return a session that has been checked by a run with one row. Raises RepositoryError naming the segment.

        A model that espalier did not export has been checked against its file, and what it can be tried with nobody knows: no run.
        """
        if isinstance(file, BundleFile):
            return _open_bundle(file)
        session = self._open_segment(file)
        if file.segment.plain is not None:
            return session
        try:
            if TENSORRT in self.providers:  # it compiles again for numbers of rows beyond those that it has seen
                warm_up(file.segment, session, self._device, file.segment.max_batch_rows)
            results = warm_up(file.segment, session, self._device)
        except Exception as error:  # as above
            raise cannot_be_loaded(file.segment, file.kept.sizes) from error
        check_outputs(file.segment, results)
        return session

    def run(self, segment: Segment, session: AnySession, inputs: Sequence[Array]) -> Sequence[Array]:
        """Run `session` on the inputs in order, each of shape (n, ...). Raises InvalidRequest, and what ONNX Runtime raises."""
        if isinstance(session, BundleSession):
            return session.run(inputs)
        if segment.plain is not None:
            return run_plain(segment, session, inputs)
        if self._device is not None:
            return run_on_device(session, inputs, self._device)
        return run_session(session, inputs)

    def memory_of(self, file: SegmentFile) -> int:
        """Return the bytes that an open session of `file` takes. Raises RepositoryError."""
        return memory_of(file)

    def computed_by(self, segment: Segment) -> str:
        """Return `name`."""
        return self.name

    def has_one_thread(self, segment: Segment) -> bool:
        """Return whether sessions of `segment` have one thread, however many are asked for."""
        return segment_threads(segment, None) == 1

    def _open(self, make_options: MakeOptions, model: Path) -> ort.InferenceSession:
        session = self._cache.open(model, make_options) if self._cache is not None else None
        if session is None:
            engine_options = self._engines.options(model) if self._engines is not None else None
            session = open_session(model, make_options(), self.providers, engine_options)
            if model.stat().st_size >= _LARGE_BYTES:
                malloc_trim()
        return session


def _open_bundle(file: BundleFile) -> BundleSession:
    try:
        return open_bundle(file)
    except EspalierError:
        raise
    except Exception as error:  # ONNX Runtime's, and of the system where there is no place for a file
        names = f"{file.members[0].segment.name!r} and {len(file.members) - 1} more"
        raise EngineError(f"{names} cannot be opened as one session ({type(error).__name__}).") from error
