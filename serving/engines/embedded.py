"""The embedded engine: ONNX Runtime in this process, one session per segment."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime as ort

from serving.dtypes import NUMPY_DTYPES
from serving.engines.base import Answer, Array, Call, SegmentStatistics
from serving.engines.cores import available_cores
from serving.engines.counting import RunCounter
from serving.engines.scheduler import MAX_QUEUE_ROWS, Scheduler
from serving.errors import RepositoryError
from serving.plan import ExecutionPlan
from serving.repository.model import SEGMENT_INPUT, Repository, Segment, segment_tensor

# Said explicitly: builds for GPUs would try CUDA and TensorRT first and warn where there is no GPU.
PROVIDERS = ("CPUExecutionProvider",)


def session_options(threads: int | None = None) -> ort.SessionOptions:
    """Return the options of every session; `threads` None: as many as this process has cores.

    Many sessions share the cores here, so that waiting threads must sleep (a spinning trunk steals the branches' cores), and idle
    memory must go back (a memory arena per session keeps 20-40 % more of it).
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4  # only fatal ones: the rest arrives as exceptions, and is said once
    return options


class EmbeddedEngine:
    """Runs the segments of `repository` on the CPU.

    threads: of a run (None: the cores of this process, divided by `instances`). instances: runs at a time. max_queue_rows: rows of waiting
    requests beyond which more are refused. max_batch_rows: the most rows of a run; None: as many as the segment takes.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        threads: int | None = None,
        instances: int = 1,
        max_queue_rows: int = MAX_QUEUE_ROWS,
        max_batch_rows: int | None = None,
    ) -> None:
        for name, number in (("threads", threads), ("instances", instances), ("max_batch_rows", max_batch_rows)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}.")
        self._repository = repository
        self._threads = threads or max(1, available_cores() // instances)
        self._max_batch_rows = max_batch_rows
        self._segments: Mapping[str, Segment] = {}
        self._sessions: Mapping[str, ort.InferenceSession] = {}
        self._counter = RunCounter(repository.segments)
        self._scheduler = Scheduler(
            self._run_segment, self._limit, workers=instances, max_queue_rows=max_queue_rows, on_run=self._counter.add
        )

    async def start(self) -> None:
        """Load every segment and run it once with one row. Raises RepositoryError naming the segment that cannot be used."""
        await self.load(self._repository)
        self._scheduler.start()

    async def aclose(self) -> None:
        """Finish what was asked for, then let go of the sessions."""
        await self._scheduler.aclose()
        self._sessions = {}

    async def load(self, repository: Repository) -> None:
        """Open the segments of `repository` that are not open, and run each once. Raises RepositoryError naming one that cannot be used."""
        missing = [segment for name, segment in repository.segments.items() if name not in self._sessions]
        opened = await asyncio.to_thread(self._open_all, repository, missing)
        self._segments = {**self._segments, **repository.segments}
        self._sessions = {**self._sessions, **opened}

    async def release(self, segments: Collection[str]) -> None:
        """Let go of the sessions of these segments."""
        self._sessions = {name: session for name, session in self._sessions.items() if name not in segments}
        self._segments = {name: segment for name, segment in self._segments.items() if name not in segments}

    async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call = Call()) -> Answer:  # noqa: B008 (frozen)
        """Run `plan` on `inputs`, each of shape (n, ...). A segment that fails is named in the answer's errors."""
        return await self._scheduler.infer(plan, inputs, call)

    def statistics(self) -> Mapping[str, SegmentStatistics]:
        """Return what each segment has done for requests so far."""
        return self._counter.totals()

    def _limit(self, name: str) -> int:
        most = self._segments[name].max_batch_rows
        return most if self._max_batch_rows is None else min(most, self._max_batch_rows)

    def _open_all(self, repository: Repository, segments: Sequence[Segment]) -> dict[str, ort.InferenceSession]:
        options = session_options(self._threads)
        return {segment.name: _open(repository.model_file(segment.name), segment, options) for segment in segments}

    def _run_segment(self, name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        return _run(self._sessions[name], inputs)


def _open(file: Path, segment: Segment, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        session = ort.InferenceSession(str(file), options, providers=list(PROVIDERS))
        warm = _run(session, [np.zeros((1, *spec.shape), NUMPY_DTYPES[spec.dtype]) for spec in segment.inputs])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise RepositoryError(
            f"Segment {segment.name!r} cannot be loaded: its model.onnx is damaged or does not fit its config.pbtxt; "
            "export the repository again."
        ) from error
    _check_outputs(segment, warm)
    return session


def _run(session: ort.InferenceSession, inputs: Sequence[Array]) -> Sequence[Array]:
    named = {segment_tensor(SEGMENT_INPUT, index): np.ascontiguousarray(rows) for index, rows in enumerate(inputs)}
    return cast(Sequence[Array], session.run(None, named))


def _check_outputs(segment: Segment, results: Sequence[Array]) -> None:
    if len(results) != len(segment.outputs):
        raise RepositoryError(
            f"Segment {segment.name!r} gives {len(results)} outputs, "
            f"but its config.pbtxt says {len(segment.outputs)}; export the repository again."
        )
    for result, expected in zip(results, segment.outputs, strict=True):
        if result.shape[1:] != expected.shape or result.dtype != NUMPY_DTYPES.get(expected.dtype):
            raise RepositoryError(
                f"Segment {segment.name!r} gives {result.dtype} rows of shape {list(result.shape[1:])}, "
                f"but its config.pbtxt says {expected.dtype} {list(expected.shape)}; export the repository again."
            )
