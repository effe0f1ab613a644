"""The embedded engine: ONNX Runtime in this process, one session per segment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numpy as np
import onnxruntime as ort

from serving.dtypes import NUMPY_DTYPES
from serving.engines.base import Answer, Array, SegmentRun, SegmentStatistics
from serving.engines.cores import available_cores
from serving.engines.counting import RunCounter
from serving.engines.execution import execute
from serving.errors import EngineError, NotReady, RepositoryError
from serving.plan import ExecutionPlan
from serving.repository.model import SEGMENT_INPUT, Repository, Segment, segment_tensor

# Said explicitly: builds for GPUs would try CUDA and TensorRT first and warn where there is no GPU.
PROVIDERS = ("CPUExecutionProvider",)
Result = TypeVar("Result")


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
    """Runs the segments of `repository` on the CPU with `threads` threads (None: the cores of this process).

    One plan runs at a time, in a thread of its own, because every session uses all threads.
    """

    def __init__(self, repository: Repository, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}.")
        self._repository = repository
        self._threads = threads
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._worker: ThreadPoolExecutor | None = None
        self._counter = RunCounter(repository.segments)

    async def start(self) -> None:
        """Load every segment and run it once with one row. Raises RepositoryError naming the segment that cannot be used."""
        worker = ThreadPoolExecutor(1, thread_name_prefix="segments")
        try:
            self._sessions = await _in_thread(worker, self._load)
        except BaseException:
            worker.shutdown(wait=False, cancel_futures=True)
            raise
        self._worker = worker

    async def aclose(self) -> None:
        """Wait for the plan that runs, then let go of the sessions."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await asyncio.to_thread(worker.shutdown)
        self._sessions = {}

    async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array]) -> Answer:
        """Run `plan` on `inputs`, each of shape (n, ...). Raises EngineError naming the segment that failed."""
        if self._worker is None:
            raise NotReady("The engine is not started.")
        return await _in_thread(self._worker, lambda: execute(plan, inputs, self._run_segment))

    def statistics(self) -> Mapping[str, SegmentStatistics]:
        """Return what each segment has done for requests so far."""
        return self._counter.totals()

    def _load(self) -> dict[str, ort.InferenceSession]:
        options = session_options(self._threads)
        return {segment.name: self._open(segment, options) for segment in self._repository.segments.values()}

    def _open(self, segment: Segment, options: ort.SessionOptions) -> ort.InferenceSession:
        try:
            path = self._repository.model_file(segment.name)
            session = ort.InferenceSession(str(path), options, providers=list(PROVIDERS))
            warm = _run(session, [np.zeros((1, *spec.shape), NUMPY_DTYPES[spec.dtype]) for spec in segment.inputs])
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise RepositoryError(
                f"Segment {segment.name!r} cannot be loaded: its model.onnx is damaged or does not fit its config.pbtxt; "
                "export the repository again."
            ) from error
        _check_outputs(segment, warm)
        return session

    def _run_segment(self, name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        started = time.perf_counter()
        try:
            results = _run(self._sessions[name], inputs)
        except Exception as error:  # see above; the message may hold paths, which clients must not see
            raise EngineError(f"Segment {name!r} failed on {len(inputs[0])} rows.") from error
        self._counter.add(SegmentRun(name, len(inputs[0]), time.perf_counter() - started))
        return results


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


async def _in_thread(worker: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(worker, cast(Any, work))
