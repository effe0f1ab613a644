"""OpenVINO as the session store's runtime, and ONNX Runtime for what it cannot do or is slower at."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic

from contract.dtypes import Array
from contract.repository.model import Repository, Segment, Task
from contract.units import listed
from serving.engines.openvino.agreement import BF16_ALLOWED
from serving.engines.openvino.model_cache import ModelCache
from serving.engines.openvino.package import chosen_precision, core, openvino, properties, version
from serving.engines.openvino.reasons import reason
from serving.engines.openvino.sample_walk import Way, Ways, settle, with_records
from serving.engines.openvino.session import OpenVinoSession
from serving.engines.openvino.verdicts import Verdict, Verdicts
from serving.engines.sessions.checks import check_outputs, is_small, zeros_for
from serving.engines.sessions.runtime import Precision, Runtime, SegmentFile, SessionStoreOptions, SessionT
from serving.process.memory import malloc_trim

log = logging.getLogger(__name__)
# What a session takes beside its weights: graph, requests, two threads.
_OVERHEAD_BYTES = 1_000_000
# Packed weights, as a share of those in the file, which are there, too.
_PACKED = {Way.fp32: 1.0, Way.bf16: 0.5}


@dataclass(frozen=True)
class Elsewhere(Generic[SessionT]):
    """A session of the other runtime."""

    session: SessionT


class OpenVinoRuntime(Generic[SessionT]):
    """Compiles segments with OpenVINO, in the precision of `options`; `other` (ONNX Runtime, in fp32) runs what OpenVINO does not.

    That are plain models, which nobody knows how to try; segments of less than a million multiply-accumulates, which OpenVINO takes twice
    the processor's time and two threads each for; what it cannot compile; and what it answers otherwise. The log says which and why.
    instances: runs at a time of one session. Raises ExtraNeeded, PrecisionUnavailable.
    """

    def __init__(self, options: SessionStoreOptions, other: Runtime[SessionT], instances: int = 1) -> None:
        asked = Precision(options.precision)
        self._precision = chosen_precision(asked)
        if asked is Precision.auto and self._precision is Precision.fp32:
            log.info("Segments run in fp32: this processor has no instructions for bf16.")
        self._threads = options.threads or 1
        self._instances = instances
        self._other = other
        self._cache: ModelCache | None = None
        if options.cache_folder is not None:
            self._cache = ModelCache(options.cache_folder, options.cache_limit_bytes, record_hashes=options.record_hashes)
        self._verdicts = Verdicts(options.ways_file, (self.name, str(openvino().__version__), other.name))
        self._ways: dict[str, Way] = {}  # only grows: a segment's name stands for its content

    @property
    def name(self) -> str:
        """Return what this is, its version, and the precision."""
        return f"openvino {version()} {self._precision}"

    @property
    def on_cpu(self) -> bool:
        """Return True."""
        return True

    @property
    def shares_weights(self) -> bool:
        """Return False: each session packs weights for itself."""
        return False

    @property
    def rounding(self) -> float:
        """Return by how much an answer may differ from that in fp32, in units of its spread."""
        return BF16_ALLOWED if self._precision is Precision.bf16 else 0.0

    def prepare(self, repository: Repository, files: Iterable[SegmentFile]) -> None:
        """Find out how the segments `files` are best run: with the samples that tasks of `repository` have recorded."""
        files = list(files)
        new = {file.segment.name: file for file in files if file.segment.plain is None}
        tasks = [task for task in with_records(repository) if any(step.segment in new for step in task.steps)]
        known = {step.segment for task in tasks for step in task.steps}
        wanted = Way.bf16 if self._precision is Precision.bf16 else Way.fp32
        ways = Ways({**self._ways})
        for name, file in new.items():
            ways.of[name] = Way.elsewhere if is_small(file.segment) else wanted if name in known else Way.fp32
        self._settle(repository, tasks, new, ways)
        self._ways.update(ways.of)
        for sentence in ways.said.values():
            log.warning("%s", sentence)
        unknown = [name for name, way in ways.of.items() if name in new and name not in known and way is not Way.elsewhere]
        if unknown and wanted is Way.bf16:
            log.warning("No sample is recorded for segments %s: they stay in fp32.", listed(unknown))
        self._say(new)
        if plain := [file.segment.name for file in files if file.segment.plain is not None]:
            log.info("Run on ONNX Runtime, because espalier did not export them: %s.", listed(plain))

    def _settle(self, repository: Repository, tasks: Sequence[Task], new: Mapping[str, SegmentFile], ways: Ways) -> None:
        """Change `ways` as the samples of `tasks` say, which are run unless an earlier process has run the same. Raises LessPrecise."""
        known = {step.segment for task in tasks for step in task.steps}
        small = [name for name in known if ways.of[name] is Way.elsewhere]
        fixed = known - new.keys()
        key = self._verdicts.key(repository, tasks, small, {name: ways.of[name] for name in sorted(fixed)})
        verdict = self._verdicts.find(key, known - fixed)
        if verdict is not None:
            ways.of.update(verdict.ways)
            ways.said.update(verdict.said)
            log.info(
                "How %d segments are best run is known from an earlier start: their samples are not run again.", len(verdict.ways)
            )
            return
        others = {name: SegmentFile(repository.segments[name], repository.model_file(name)) for name in fixed}
        trial = _Trial(self, {**new, **others}, ways)
        settle(tasks, ways, fixed, trial.run, trial.close)
        if not trial.has_refused:  # which may be for want of memory
            self._verdicts.keep(key, Verdict({name: ways.of[name] for name in known - fixed}, ways.said))

    def load(self, file: SegmentFile) -> OpenVinoSession | Elsewhere[SessionT]:
        """Return a session of `file` that has been checked by a run with one row. Raises RepositoryError naming the segment."""
        elsewhere = partial(self._other.load, file)
        return self._session(file, partial(self._checked, file), elsewhere, elsewhere)

    def open(self, file: SegmentFile, threads: int | None = None) -> OpenVinoSession | Elsewhere[SessionT]:
        """Return a session of a segment that has been checked, here or by an earlier process, with so many threads.

        What OpenVINO does not run now is checked on ONNX Runtime. Raises RepositoryError.
        """

        def unforeseen() -> SessionT:
            session = self._other.load(file)
            return session if threads is None else self._other.open(file, threads)

        compiled = partial(self._compiled, file, threads=threads or self._threads)
        return self._session(file, compiled, partial(self._other.open, file, threads), unforeseen)

    def run(self, segment: Segment, session: OpenVinoSession | Elsewhere[SessionT], inputs: Sequence[Array]) -> Sequence[Array]:
        """Run `session` of `segment` on its inputs in order, each of shape (n, ...)."""
        if isinstance(session, OpenVinoSession):
            return session.run(inputs)
        return self._other.run(segment, session.session, inputs)

    def memory_of(self, file: SegmentFile) -> int:
        """Return the bytes that an open session of `file` takes: weights, these again as they are packed, and what comes with them."""
        way = self._way(file.segment)
        if way is Way.elsewhere:
            return self._other.memory_of(file)
        return _OVERHEAD_BYTES + int(file.kept.bytes * (1 + _PACKED[way]))

    def computed_by(self, segment: Segment) -> str:
        """Return what computes `segment`, its version, and OpenVINO's precision."""
        way = self._way(segment)
        return self._other.computed_by(segment) if way is Way.elsewhere else f"openvino {version()} {way}"

    def has_one_thread(self, segment: Segment) -> bool:
        """Return whether sessions of `segment` have one thread: small ones."""
        return self._other.has_one_thread(segment)

    def trial(self, file: SegmentFile, way: Way) -> OpenVinoSession | Elsewhere[SessionT]:
        """Return a session of `file` that is run in `way`. Raises RepositoryError, and what OpenVINO raises."""
        return Elsewhere(self._other.open(file)) if way is Way.elsewhere else self._compiled(file, way, self._threads)

    def _way(self, segment: Segment) -> Way:
        small = Way.elsewhere if segment.plain is not None or is_small(segment) else Way.fp32
        return small if segment.plain is not None else self._ways.get(segment.name, small)

    def _session(
        self,
        file: SegmentFile,
        here: Callable[[Way], OpenVinoSession],
        elsewhere: Callable[[], SessionT],
        unforeseen: Callable[[], SessionT],
    ) -> OpenVinoSession | Elsewhere[SessionT]:
        """Return what `here` makes of the segment's way, what `elsewhere` does, where that is the way, or `unforeseen`, if `here` fails."""
        name, way = file.segment.name, self._way(file.segment)
        if way is Way.elsewhere:
            return Elsewhere(elsewhere())
        try:
            return here(way)
        except Exception as error:  # what is wrong with the file, ONNX Runtime says, or else runs it
            session = Elsewhere(unforeseen())
            log.warning("Segment %r runs on ONNX Runtime: %s.", name, reason(error))
            self._ways[name] = Way.elsewhere
            return session

    def _checked(self, file: SegmentFile, way: Way) -> OpenVinoSession:
        session = self._compiled(file, way, self._threads)
        check_outputs(file.segment, session.run(zeros_for(file.segment, 1)))
        malloc_trim()
        return session

    def _compiled(self, file: SegmentFile, way: Way, threads: int) -> OpenVinoSession:
        def compile_model(model: Path) -> OpenVinoSession:
            read = (self._cache.read(model) if self._cache is not None else None) or core().read_model(model)
            how = properties(Precision(way), threads, self._instances)
            return OpenVinoSession(file.segment, core().compile_model(read, "CPU", how))

        return file.kept.use(compile_model)

    def _say(self, new: Iterable[str]) -> None:
        counts = Counter(self._ways[name] for name in new)
        if counts:
            log.info(
                "Segments that are new: %d on OpenVINO %s in bf16, %d in fp32, %d on ONNX Runtime, of which those of less than a million "
                "multiply-accumulates are sooner done there.",
                *(counts[Way.bf16], version(), counts[Way.fp32], counts[Way.elsewhere]),
            )


class _Trial(Generic[SessionT]):
    """The sessions with which samples are tried, each open until it is needed no more."""

    def __init__(self, runtime: OpenVinoRuntime[SessionT], files: dict[str, SegmentFile], ways: Ways) -> None:
        self._runtime, self._files, self._ways = runtime, files, ways
        self._sessions: dict[tuple[str, Way], OpenVinoSession | Elsewhere[SessionT]] = {}
        self.has_refused = False  # OpenVINO, to compile or run one

    def run(self, name: str, way: Way, inputs: Sequence[Array]) -> Sequence[Array]:
        """Run segment `name` in `way`; what OpenVINO cannot, on ONNX Runtime from now on. Raises RepositoryError."""
        file = self._files[name]
        try:
            if (name, way) not in self._sessions:
                self._sessions[name, way] = self._runtime.trial(file, way)
            return self._runtime.run(file.segment, self._sessions[name, way], inputs)
        except Exception as error:
            if way is Way.elsewhere:
                raise
            self.has_refused = True
            self._ways.of[name] = Way.elsewhere
            self._ways.said[name] = f"Segment {name!r} runs on ONNX Runtime: {reason(error)}."
            return self.run(name, Way.elsewhere, inputs)

    def close(self, name: str) -> None:
        """Let go of the sessions of segment `name`."""
        for way in Way:
            self._sessions.pop((name, way), None)
