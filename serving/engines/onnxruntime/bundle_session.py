"""Sessions of several segments that take the same: opened from one merged model, and compared with each segment's own before they serve."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from contract.dtypes import NUMPY_DTYPES, Array
from contract.errors import EspalierError
from contract.repository.model import Segment
from serving.engines.onnxruntime.session import PROVIDERS, open_session, run_session, session_options
from serving.engines.sessions.runtime import BundleFile, SegmentFile
from serving.errors import CannotBundle
from serving.process.memory import malloc_trim

if TYPE_CHECKING:
    import onnx

_ROWS = 3  # of the comparison
_TOLERANCE = 1e-4  # of the largest value: sums in another order, no more


@dataclass(frozen=True)
class BundleSession:
    """places: of each output of the segments, one after the other: which result of the session, from where to where of its last axis."""

    session: ort.InferenceSession
    places: tuple[tuple[int, int, int], ...]

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return the outputs of all segments on their inputs in order, each of shape (n, ...)."""
        results = run_session(self.session, inputs)
        if inputs[0].shape[:-1] == (1,):  # then parts of rows are without gaps
            return [results[result][..., start:stop] if stop else results[result] for result, start, stop in self.places]
        return [
            np.ascontiguousarray(results[result][..., start:stop]) if stop else results[result]
            for result, start, stop in self.places
        ]


def open_bundle(file: BundleFile) -> BundleSession:
    """Return a session that gives what each of `file.members` gives. Raises CannotBundle naming one because of which there is none."""
    from serving.engines.onnxruntime.merged_model import NotMergeable, merge

    models = [_read(member) for member in file.members]
    try:
        merged = merge(models)
    except NotMergeable as error:
        raise CannotBundle(file.members[error.number].segment.name, str(error)) from error
    del models
    with tempfile.TemporaryDirectory(prefix="espalier-bundle-") as folder:
        model = Path(folder) / "model.onnx"
        model.write_bytes(merged.model.SerializeToString())  # parsed from memory, it would hold Python's lock
        del merged.model.graph.initializer[:]
        session = BundleSession(open_session(model, _options(), PROVIDERS), merged.places)
    _compare(file, session)
    malloc_trim()
    return session


def _options() -> ort.SessionOptions:
    return session_options(threads=1, spin=False)


def _read(member: SegmentFile) -> onnx.ModelProto:
    import onnx

    try:
        return member.kept.use(onnx.load)
    except EspalierError:
        raise
    except Exception as error:  # onnx has no common base, either
        raise CannotBundle(member.segment.name, "its file cannot be read as one with all weights") from error


def _compare(file: BundleFile, bundle: BundleSession) -> None:
    """Raise CannotBundle unless each segment's own session gives the same."""
    inputs = _noise(file.members[0].segment)
    results = iter(bundle.run(inputs))
    for member in file.members:
        try:
            expected = member.kept.use(lambda model: run_session(open_session(model, _options(), PROVIDERS), inputs))
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise CannotBundle(member.segment.name, "it fails on noise") from error
        for own, found in zip(expected, results, strict=False):
            if own.shape != found.shape or not _is_close(own, found):
                raise CannotBundle(member.segment.name, "there it gives other answers")


def _noise(segment: Segment) -> list[Array]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal((_ROWS, *spec.shape)).astype(NUMPY_DTYPES[spec.dtype]) for spec in segment.inputs]


def _is_close(own: Array, found: Array) -> bool:
    largest = float(np.max(np.abs(own), initial=0.0, where=np.isfinite(own)))
    return bool(np.allclose(own, found, rtol=0.0, atol=_TOLERANCE * largest, equal_nan=True))
