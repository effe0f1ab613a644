"""The Triton engine: a plan becomes one request to an ensemble of a Triton, or, where none computes it, one for each of its steps."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import grpc

from contract.dtypes import Array
from contract.errors import EspalierError
from contract.plan import ExecutionPlan
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, Repository, Segment, segment_tensor
from serving.engines.base import Answer, Call, SegmentRun, SegmentStatistics
from serving.engines.scheduling.admission import Admission, QueuePlace
from serving.engines.scheduling.scheduler import MAX_QUEUE_ROWS
from serving.engines.triton.addresses import Address, parse_urls
from serving.engines.triton.channels import TritonChannel
from serving.engines.triton.choice import Choices, Ensemble, ensembles_of, unchanged
from serving.engines.triton.control import TritonServer
from serving.engines.triton.errors import said, translated
from serving.engines.triton.fleet import Fleet
from serving.engines.triton.models import KeptModels, converge, models_of
from serving.engines.triton.plan_requests import OF_THE_REQUEST, ask_in_chunks, run_steps
from serving.engines.triton.rollout import Releases, roll_out, unload
from serving.engines.triton.shared_memory_channel import SharedMemoryChannels
from serving.engines.triton.statistics import TritonStatistics
from serving.engines.triton.wire import decode, encode, seconds_left
from serving.errors import EngineDown, NotReady
from serving.process.threads import to_thread

log = logging.getLogger(__name__)
_SETTLE_S = 30.0  # that a load waits for requests which are under way to ensembles that it replaces


@dataclass(frozen=True)
class TritonEngineOptions:
    """How Tritons are used.

    send_files: whether they are sent the models, which otherwise are in their own repository. wait_s: how long `start` waits for one.
    max_queue_rows: rows of unanswered requests, where sizes are free those at the reference sizes, of which each tenant has its share
    (scheduling/admission.py). resolve_s: how often host names are looked up. statistics_s: how often statistics are fetched when nobody
    asks, which is how old the metrics may be. keep_s: how long segments that are over stay loaded, for other servers before the same
    Tritons, which are told of a deploy after this one.
    shared_from_bytes: requests with so many bytes of inputs or more leave them in shared memory for Tritons on this host; None: none do.
    """

    send_files: bool = False
    wait_s: float = 30.0
    max_queue_rows: int = MAX_QUEUE_ROWS
    resolve_s: float = 5.0
    statistics_s: float = 5.0
    keep_s: float = 30.0
    shared_from_bytes: int | None = None


@dataclass(frozen=True)
class _Context:
    """Of a request on its way: through which channel it goes, how it was asked, and its place in the queue, None: nobody waits."""

    channel: TritonChannel
    call: Call
    place: QueuePlace | None = None


class TritonEngine:
    """Answers from the Tritons at `urls` ("grpc://host:8001", several with commas), which serve `repository`.

    Raises InvalidTritonUrl.
    """

    batches_elsewhere: ClassVar[bool] = True

    def __init__(self, repository: Repository, urls: str, options: TritonEngineOptions | None = None) -> None:
        self._addresses: Sequence[Address] = parse_urls(urls)
        self._options = options or TritonEngineOptions()
        self._repository = repository
        self._models = models_of(repository)
        self._files = KeptModels(repository, self._models.parts) if self._options.send_files else None
        self._choices = Choices(ensembles_of(repository, self._models.ensembles))
        self._segments = frozenset(repository.segments)
        self._statistics = TritonStatistics()
        self._admission = Admission(self._options.max_queue_rows)
        self._fleet: Fleet | None = None
        self._shared = SharedMemoryChannels(self._options.shared_from_bytes or 0)
        self._changing = asyncio.Lock()
        self._fetching: asyncio.Task[None] | None = None
        self._releases = Releases(self._unload, self._options.keep_s)

    @property
    def rounding(self) -> float:
        """Return 0: nothing is rounded here."""
        return 0.0

    async def start(self) -> None:
        """Return when a Triton serves all of the repository, having loaded what it lacked.

        Raises TritonUnreachable, and RepositoryError naming the model that could not be loaded.
        """
        self._loop = asyncio.get_running_loop()
        self._fleet = fleet = Fleet(self._addresses, self._admit, self._options.resolve_s, leave=self._shared.leave)
        self._fetching = asyncio.create_task(self._fetch_forever())
        try:
            await fleet.start(self._options.wait_s)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Finish what was asked for, and close the connections. Triton goes on as it is."""
        fleet, self._fleet = self._fleet, None
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
        await self._releases.aclose()
        if fleet is not None:
            await fleet.aclose()
        await self._shared.aclose()

    async def load(self, repository: Repository) -> None:
        """Have every Triton serve `repository`. Until then, requests for what changes are answered step by step.

        Raises RepositoryError naming the model that could not be loaded; then all is as it was. Raises EngineDown, NotReady.
        """
        async with self._changing:
            fleet, old = self._started(), self._choices
            before, after = old.ensembles, models_of(repository)
            self._releases.need(after.parts)
            wanted = ensembles_of(repository, after.ensembles)
            self._choices = Choices(unchanged(before, wanted))
            try:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(old.users.gone(), _SETTLE_S)
                files = self._files and await to_thread(KeptModels, repository, after.parts, self._files)
                await roll_out(fleet, self._models, after, (self._files, files))
                await self._fetch_statistics(fleet, partial(self._statistics.begin, afresh=False))
            except BaseException:
                self._choices = Choices(before)
                raise
            self._repository, self._models, self._files = repository, after, files
            self._segments |= repository.segments.keys()
            self._choices = Choices(wanted)

    async def release(self, segments: Collection[str]) -> None:
        """Have the Tritons unload these segments after `keep_s`, unless they are in use again by then or the engine is closed."""
        await self._releases.add(segments)

    async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call = Call()) -> Answer:  # noqa: B008 (frozen)
        """Run `plan` on `inputs`, each of shape (n, ...). What fails is named in the answer's errors.

        Raises NotReady before `start`, EngineDown when no Triton answers, QueueFull, DeadlineExceeded. Cancelling it leaves to Triton what
        it works on, and asks for nothing more.
        """
        channel = self._started().channel
        if channel is None:
            raise EngineDown
        choices = self._choices
        ensemble = choices.of(plan)
        limit = min((limit for limit in (call.rows_per_run, ensemble.max_rows if ensemble else 0) if limit), default=0)
        if plan.volume is not None and not plan.coupled:
            limit = plan.volume.as_many_as(limit, inputs)
        rows = len(next(iter(inputs.values())))
        waiting = rows if plan.volume is None else plan.volume.in_reference_rows(inputs, rows)
        place = self._admission.enter(call.tenant, waiting)
        try:
            with channel.users.one(), choices.users.one():
                ask = partial(self._answer, _Context(channel, call, place), plan, ensemble)
                return await ask_in_chunks(plan, inputs, limit, ask)
        finally:
            place.let_go()

    def try_segment(self, segment: Segment, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return what a Triton's `segment` gives on `inputs`. Raises NotReady, EngineDown, EngineError."""
        channel = self._started().channel
        if channel is None:
            raise EngineDown
        asked = self._run_segment(_Context(channel, Call()), segment.name, inputs, len(segment.outputs))
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()

    def check_room(self, rows: int, call: Call) -> None:
        """Raise QueueFull when so many rows more may not wait now; the parts of a request, which are asked for side by side, all count."""
        self._admission.check(call.tenant, rows)

    def queued_rows(self) -> Mapping[str, int]:
        """Return the rows that are not answered yet, by tenant, with those that nobody waits for and Triton works on."""
        return self._admission.rows()

    def statistics(self) -> Mapping[str, SegmentStatistics]:
        """Return what Triton says of each segment, all Tritons together, whoever asked them; up to `statistics_s` old."""
        return self._statistics.totals(self._segments)

    async def refresh(self) -> None:
        """Ask the Tritons; of one that does not answer, what it said last is kept."""
        if self._fleet is not None:
            await self._fetch_statistics(self._fleet, self._statistics.update)

    def loaded(self) -> Mapping[str, int]:
        """Return the bytes of each segment's weights, of one Triton; what it takes beside them is not known here."""
        if self._fleet is None or self._fleet.channel is None:
            return {}
        return {name: segment.weight_bytes for name, segment in self._repository.segments.items()}

    def computed_by(self) -> Mapping[str, int]:
        """Return how many segments Tritons have."""
        return {"triton": len(self.loaded())}

    def unavailable(self) -> Collection[str]:
        """Return nothing: a Triton that does not serve a model is not admitted."""
        return ()

    async def _unload(self, segments: Collection[str]) -> None:
        async with self._changing:
            if self._fleet is not None:
                gone = {*segments} - self._models.parts
                await unload(self._fleet.servers.values(), sorted(gone))
                self._segments -= gone
                self._statistics.forget(gone)

    def _started(self) -> Fleet:
        if self._fleet is None:
            raise NotReady("The engine is not started.")
        return self._fleet

    async def _answer(
        self, context: _Context, plan: ExecutionPlan, ensemble: Ensemble | None, inputs: Mapping[str, Array]
    ) -> Answer:
        """Answer rows that go at once: by the ensemble, and if there is none or it fails, step by step.

        Triton's ensembles fail whole. Step by step, what fails takes with it what depends on it and nothing else.
        """
        if ensemble is not None:
            try:
                return await self._ask_ensemble(context, plan, ensemble, inputs)
            except OF_THE_REQUEST:
                raise
            except EspalierError as error:
                log.warning("%s Its steps are asked for one by one.%s", error, said(error))
        return await run_steps(plan, inputs, context.call, partial(self._run_segment, context))

    async def _ask_ensemble(
        self, context: _Context, plan: ExecutionPlan, ensemble: Ensemble, inputs: Mapping[str, Array]
    ) -> Answer:
        sent = {name: inputs[name] for name in plan.inputs}
        outputs = await self._ask(context, ensemble.name, sent, list(plan.outputs))
        rows = len(next(iter(sent.values())))
        # What Triton did, by the plan; how long it took, it does not say with the answer.
        return Answer(outputs, tuple(SegmentRun(step.segment, rows * len(step.inputs), 0.0) for step in plan.steps))

    async def _admit(self, server: TritonServer, enter: Callable[[], None]) -> None:
        """Have a Triton that was not there serve what the others serve, and let it in."""
        models = self._models
        await converge(server, models, None, self._files)
        async with self._changing:
            if models is not self._models:  # meanwhile something was deployed
                await converge(server, self._models, models, self._files)
            self._statistics.begin(server.address, await server.statistics())
            if self._options.shared_from_bytes is not None:
                await self._shared.join(server.address)
            enter()

    async def _fetch_forever(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(self._options.statistics_s)

    async def _fetch_statistics(self, fleet: Fleet, take: Callable[[Address, object], None]) -> None:
        for address, server in fleet.servers.items():
            with contextlib.suppress(EspalierError):  # it has gone: what it said last is kept
                take(address, await server.statistics())

    async def _run_segment(self, context: _Context, name: str, arrays: Sequence[Array], outputs: int) -> Sequence[Array]:
        inputs = {segment_tensor(SEGMENT_INPUT, index): array for index, array in enumerate(arrays)}
        names = [segment_tensor(SEGMENT_OUTPUT, index) for index in range(outputs)]
        return list((await self._ask(context, name, inputs, names)).values())

    async def _ask(
        self, context: _Context, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Mapping[str, Array]:
        call, place = context.call, context.place
        try:
            response = await self._shared.infer(model, inputs, outputs, call, place)
            if response is None:
                left_s = seconds_left(call)
                response = await context.channel.infer(encode(model, inputs, outputs, call, left_s), left_s, place)
        except grpc.aio.AioRpcError as error:
            raise translated(error, model) from error
        return decode(response, model, outputs, len(next(iter(inputs.values()))))
