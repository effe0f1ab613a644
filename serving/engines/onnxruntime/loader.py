"""From a segment's file to a session that has been checked, and what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import onnxruntime as ort

from contract.errors import RepositoryError
from contract.repository.model import Segment
from serving.engines.device_tensors import Device
from serving.engines.onnxruntime.engine_cache import EngineCache
from serving.engines.onnxruntime.providers import TENSORRT
from serving.engines.onnxruntime.segment_cache import MakeOptions, SegmentCache
from serving.engines.onnxruntime.session import (
    cannot_be_loaded,
    cannot_be_read,
    check_outputs,
    open_session,
    segment_threads,
    session_options,
    warm_up,
)
from serving.engines.sessions.kept_files import KeptFiles
from serving.process.malloc_trim import give_back_freed_memory

# What a session takes beside its weights (graph, kernels, thread, padding of packed matrices): see benchmarks/studies/session_loading.py.
_OVERHEAD_BYTES = 250_000


@dataclass(frozen=True)
class SegmentFile:
    """A segment and the ONNX file that computes it."""

    segment: Segment
    model: Path

    @cached_property
    def kept(self) -> KeptFiles:
        """Return the file, with what is beside it, kept from when this was first asked for. Raises RepositoryError."""
        try:
            return KeptFiles(self.model)
        except OSError as error:
            raise RepositoryError(f"Segment {self.segment.name!r} has no model.onnx; export the repository again.") from error


@dataclass(frozen=True)
class SegmentLoader:
    """Opens segments from the cache where they have a form there, else from their own files. threads, spin: as of `session_options`.

    engines: of the first provider, TensorRT. device: where features stay, None: on the host.
    """

    providers: Sequence[str]
    threads: int | None = None
    cache: SegmentCache | None = None
    engines: EngineCache | None = None
    device: Device | None = None
    spin: bool = True

    def open(self, file: SegmentFile) -> ort.InferenceSession:
        """Return a session that nobody has checked, as another one of a segment that was. Raises RepositoryError naming the segment."""
        make_options = partial(session_options, segment_threads(file.segment, self.threads), self.spin)
        try:
            return file.kept.use(partial(self._open, make_options))
        except RepositoryError:
            raise
        except OSError as error:
            raise cannot_be_read(file.segment, error) from error
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise cannot_be_loaded(file.segment) from error

    def _open(self, make_options: MakeOptions, model: Path) -> ort.InferenceSession:
        session = self.cache.open(model, make_options) if self.cache is not None else None
        if session is None:
            engine_options = self.engines.options(model) if self.engines is not None else None
            session = open_session(model, make_options(), self.providers, engine_options)
            give_back_freed_memory()
        return session

    def load(self, file: SegmentFile) -> ort.InferenceSession:
        """Return a session that has been checked by a run with one row. Raises RepositoryError naming the segment.

        A model that espalier did not export has been checked against its file, and what it can be tried with nobody knows: no run.
        """
        session = self.open(file)
        if file.segment.plain is not None:
            return session
        try:
            if TENSORRT in self.providers:  # it compiles again for numbers of rows beyond those that it has seen
                warm_up(file.segment, session, self.device, file.segment.max_batch_rows)
            results = warm_up(file.segment, session, self.device)
        except Exception as error:  # as above
            raise cannot_be_loaded(file.segment) from error
        check_outputs(file.segment, results)
        return session


def memory_of(file: SegmentFile) -> int:
    """Return the bytes that an open session of `file` takes: its weights, and what comes with them. Raises RepositoryError."""
    return _OVERHEAD_BYTES + file.kept.bytes  # with external data, where there is any
