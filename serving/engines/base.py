"""The seam between deciding and computing: an engine answers an execution plan for some rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

from contract.dtypes import Array
from contract.errors import EspalierError
from contract.histogram import EMPTY, Histogram
from contract.plan import ExecutionPlan
from contract.repository.model import Repository, Segment


@dataclass(frozen=True)
class Call:
    """How a plan is to be run.

    tenant: who it is accounted to, the model that was called; tenants share the machine fairly.
    deadline: in time.monotonic seconds; None: none. priority: smaller goes first. rows_per_run: the most rows of the request that go
    through the plan at once, 0: any number. keeps: whether it may take features that others have left, and leave some (serving/features/).
    """

    tenant: str = ""
    deadline: float | None = None
    priority: int = 0
    rows_per_run: int = 0
    keeps: bool = False

    def at_once(self, rows: int) -> int:
        """Return how many of a request's `rows` go through the plan at once."""
        return min(rows, self.rows_per_run or rows)


class SegmentRun(NamedTuple):
    """One run of a segment, as it happened, for one request.

    rows: of the request. seconds: of the run. batch_rows: of all requests in it, 0: `rows`. queue_seconds: how long the request waited
    for it, 0 where nobody measured. started_ns: nanoseconds since 1970; 0: not known.
    """

    segment: str
    rows: int
    seconds: float
    batch_rows: int = 0
    queue_seconds: float = 0.0
    started_ns: int = 0


@dataclass(frozen=True)
class Answer:
    """The outputs of a plan by name, each of shape (rows, ...), and the runs that produced them in order.

    errors: of outputs that could not be computed. queue_seconds: that the request waited for its first run. parts: in how many its rows
    went through the plan. cached: segments that did not run, since what they give was there.
    """

    outputs: Mapping[str, Array]
    runs: tuple[SegmentRun, ...]
    errors: Mapping[str, EspalierError] = field(default_factory=dict)
    queue_seconds: float = 0.0
    parts: int = 1
    cached: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchStatistics:
    """Runs with the same number of rows, and their time added up; what goes before and after, where it is counted apart."""

    runs: int
    seconds: float
    input_seconds: float = 0.0
    output_seconds: float = 0.0


@dataclass(frozen=True)
class RequestSeconds:
    """Of requests that were answered, added up: `total` from when each could run to its answer, `infer` of the runs that it was in.

    A run that served several requests counts in full for each. input, output: what goes before and after, 0 where `infer` has it.
    """

    total: float = 0.0
    input: float = 0.0
    infer: float = 0.0
    output: float = 0.0


@dataclass(frozen=True)
class SegmentStatistics:
    """What a segment has done since it was loaded. `last_run_ms`: when it last ran, milliseconds since 1970; 0: never.

    compute: of runs. queue, requests: of requests, of which a run serves one or several; as on Triton, a plan that applies the segment
    to several streams makes one for each. batches: under the rows of a run.
    """

    runs: int = 0
    rows: int = 0
    seconds: float = 0.0
    last_run_ms: int = 0
    compute: Histogram = EMPTY
    queue: Histogram = EMPTY
    requests: RequestSeconds = RequestSeconds()
    batches: Mapping[int, BatchStatistics] = field(default_factory=dict)


class Engine(Protocol):
    """Runs plans. `start` makes it ready (models loaded and warm), `aclose` lets go of everything.

    batches_elsewhere: whether what computes puts requests together by itself, going by the configuration of each segment alone.
    """

    batches_elsewhere: ClassVar[bool]

    @property
    def rounding(self) -> float:
        """Return by how much an answer may differ from the exported network's because of how this computes, in units of its spread."""

    async def start(self) -> None:
        """Load what is needed. Raises RepositoryError or EngineError; a failed start leaves nothing behind."""

    async def aclose(self) -> None:
        """Finish what is running and release the models. Does nothing on an engine that is not started."""

    async def load(self, repository: Repository) -> None:
        """Open and try the segments of `repository` that are not open, before anybody asks for them.

        Raises RepositoryError naming one that cannot be used; then none of them is open. Requests go on meanwhile.
        """

    async def release(self, segments: Collection[str]) -> None:
        """Close these segments and forget their statistics; nobody will ask for them, unless they are loaded again."""

    async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call = Call()) -> Answer:
        """Run `plan` on `inputs` (by name, each of shape (n, ...), n >= 1).

        Segments that fail make errors in the answer. Raises NotReady before `start`, QueueFull, DeadlineExceeded; TooManyRows where there
        are more than `call.rows_per_run`, and `plan` must not be divided.
        """

    def try_segment(self, segment: Segment, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return what `segment`, which is loaded, gives on `inputs`, by itself and as nobody's request.

        Callable from any thread but the event loop's, which it would hold up. Raises EngineError, RepositoryError, NotReady.
        """

    def check_room(self, rows: int, call: Call) -> None:
        """Raise QueueFull where `infer` would for so many rows: before work that would be in vain. Callable from any thread."""

    def queued_rows(self) -> Mapping[str, int]:
        """Return the rows that wait, of each tenant that has any, as they count against its share. Callable from any thread."""

    def statistics(self) -> Mapping[str, SegmentStatistics]:
        """Return what each segment that is loaded has done for requests; warming up does not count. Callable from any thread."""

    async def refresh(self) -> None:
        """Have `statistics` say what is so now, where somebody else keeps the count."""

    def loaded(self) -> Mapping[str, int]:
        """Return the bytes that each open segment takes. Callable from any thread."""

    def computed_by(self) -> Mapping[str, int]:
        """Return how many of the open segments are computed by what, by its name and version. Callable from any thread."""

    def unavailable(self) -> Collection[str]:
        """Return the segments that were loaded and cannot be opened any more, until one of them can. Callable from any thread."""
