"""Turns requests into execution plans on an engine: the core that HTTP and gRPC share, free of either."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from contract.dtypes import Array
from contract.errors import EspalierError, InvalidRequest, RepositoryError
from contract.plan import ExecutionPlan
from contract.repository.config import ALL_TASKS
from contract.repository.model import Repository, Task
from contract.repository.read import RepositoryReader
from serving.answers.answer import About, Shown, Vectors
from serving.answers.classes import as_classes, assumed_scores
from serving.answers.prediction import Prediction
from serving.answers.readers import AnyAnswer, read_answers
from serving.answers.shown import check_shown
from serving.catalog import Catalog, Model, involved, served_by
from serving.engines.base import Answer, Call, Engine, SegmentRun, SegmentStatistics
from serving.errors import ModelNotReady, NotReady, TaskFailed
from serving.free_sizes import check_limits
from serving.images.tasks import AnyImage, Images, Prepare, given
from serving.lifecycle import Lifecycle
from serving.names import in_own_words
from serving.observe.deployments import observed
from serving.observe.events import NullObserver, Observer, note_work
from serving.observe.logs import Seldom
from serving.padding import PaddedOutput
from serving.parity import check_answers
from serving.questions import Question
from serving.requests import InferRequest, InferResponse, RequestOptions, read_options
from serving.statistics import ModelStatistics, ModelVersion, RequestCounter
from serving.text.tasks import Texts
from serving.validate import check_count, checked_inputs, checked_outputs, known_outputs, without_inputs

log = logging.getLogger(__name__)
_NO_OPTIONS = RequestOptions()
_Way = TypeVar("_Way", bound=Hashable)


class Router:
    """Answers requests for the models of `repository` with `engine`, which it starts and closes. `observer` is told what happens.

    draw: returns numbers in [0, 1), which share out requests between a task and its canary. reader, rows_record, pad_lengths: see
    `Lifecycle`.
    """

    def __init__(
        self,
        repository: Repository,
        engine: Engine,
        observer: Observer | None = None,
        draw: Callable[[], float] = random.random,
        reader: RepositoryReader | None = None,
        rows_record: Path | None = None,
        pad_lengths: Sequence[int] = (),
    ) -> None:
        self._draw = draw
        self._engine = engine
        self.observer = observer or NullObserver()
        self.lifecycle = Lifecycle(repository, engine, reader, rows_record, pad_lengths)
        self._requests = RequestCounter()
        self._traces = Seldom()
        self._ready = False
        self._draining = asyncio.Event()

    @property
    def draining(self) -> bool:
        """Whether somebody has asked to stop."""
        return self._draining.is_set()

    async def until_draining(self) -> None:
        """Return when somebody has asked to stop."""
        await self._draining.wait()

    @property
    def catalog(self) -> Catalog:
        """Return the models that are served now."""
        return self.lifecycle.catalog

    @property
    def repository(self) -> Repository:
        """Return the segments and tasks that are served now."""
        return self.catalog.repository

    @property
    def ready(self) -> bool:
        """Whether all requests are answered: the engine is loaded, nobody has asked to stop, and every segment can be opened."""
        return self._ready and not self._engine.unavailable()

    async def start(self, check_samples: bool = False) -> None:
        """Load the models and, if asked to, compare every task's answer with its record. Raises RepositoryError or EngineError."""
        await self._engine.start()
        await self.lifecycle.begin()
        if check_samples:
            await check_answers(self._engine, self.repository, self.repository.tasks.values())
        _say_assumed(self.repository.tasks.values())
        self._ready = True

    def drain(self) -> None:
        """Refuse new requests from now on; those in flight go on."""
        self._ready = False
        self._draining.set()

    async def aclose(self) -> None:
        """Stop answering and release the models."""
        self._ready = False
        await self.lifecycle.settle()
        await self._engine.aclose()

    async def load(self, name: str) -> None:
        """Serve a task as it is on disk now; see `Lifecycle.load`. Raises NotReady, too."""
        await self._change("load", name, self.lifecycle.load)

    async def unload(self, name: str) -> None:
        """Serve a task no longer; see `Lifecycle.unload`. Raises NotReady, too."""
        await self._change("unload", name, self.lifecycle.unload)

    async def _change(self, action: str, name: str, change: Callable[[str], Awaitable[None]]) -> None:
        self.check_ready()
        await self.lifecycle.finish(self._observed(action, name, change))

    async def _observed(self, action: str, name: str, change: Callable[[str], Awaitable[None]]) -> None:
        with observed(self.observer, action, name, lambda: self.repository.tasks):
            before = self.repository.tasks
            await change(name)
        _say_assumed(task for task in self.repository.tasks.values() if task != before.get(task.name))
        self._requests.forget({(model.name, model.version) for model in self.catalog.all_versions()})

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer `request`. Raises UnknownModel, InvalidRequest, NotReady, QueueFull, DeadlineExceeded, TaskFailed, EngineError."""
        self.check_ready()
        with self.lifecycle.use() as catalog:
            return await self._infer(catalog, request)

    async def _infer(self, catalog: Catalog, request: InferRequest) -> InferResponse:
        current = catalog.find(request.model)
        check_count(current, request.outputs, catalog.outputs_of_canaries)
        request, called = in_own_words(current, request)
        if catalog.has_canaries:
            names = involved(catalog, request.model, [output.name for output in request.outputs])
            catalog = served_by(catalog, names, request.version, self._draw)
        model = catalog.find(request.model, request.version)
        rows = _row_count(model, request)
        note_work(model.name, rows)
        with self._requests.counting(model.name, model.version, rows) as tally:
            options = read_options(request.parameters, request.deadline)
            known, errors = known_outputs(model, request.outputs, options.partial)
            outputs = checked_outputs(model, known)
            if options.partial and (lacking := without_inputs(model, request, outputs)):
                outputs, errors = tuple(output for output in outputs if output.name not in lacking), errors | lacking
            names = [output.name for output in outputs]
            inputs = checked_inputs(model, request, names)
            if model.limits:
                check_limits(model.limits, inputs, names, model.shown)
            answer = await self._compute(catalog, model, names, inputs, options)
            _raise_failure(model, answer.errors, allowed=bool(answer.outputs))
            tally.ran(answer.runs)
        errors |= {name: str(error) for name, error in answer.errors.items()}
        values = {}
        for output in outputs:
            if output.name in errors:
                continue
            found = answer.outputs[output.name]
            if output.classes:
                found = await as_classes(found, model.outputs[output.name].labels, output.classes)
            values[called.get(output.name, output.name)] = found if model.has_rows else found[0]
        errors = {called.get(name, name): sentence for name, sentence in errors.items()}
        return InferResponse(
            model.name, model.version, request.id, values, answer.runs, errors, answer.queue_seconds, answer.cached
        )

    async def predict(
        self,
        images: Sequence[AnyImage],
        tasks: Sequence[str] | None,
        top_k: int | None = None,
        options: RequestOptions = _NO_OPTIONS,
    ) -> Prediction:
        """Return what each of `tasks` answers about each of `images`; None: all that take images.

        images: PIL images, or uint8 RGB arrays of shape (height, width, 3), each of any size. Every task's own preprocessing is
        applied; tasks with equal preprocessing share the trunk. top_k: how many of the best parts of answers that have such, None: five
        classes, and as many boxes as the task says.
        Raises NoTask, UnknownTask, NotAnImage, InvalidRequest, QueueFull, DeadlineExceeded, TaskFailed.
        """
        return await self.predict_prepared(given(images), tasks, top_k, options)

    async def predict_prepared(
        self,
        prepare: Prepare,
        tasks: Sequence[str] | None,
        top_k: int | None,
        options: RequestOptions,
        vectors: Vectors = "list",
        show: Collection[Shown] = (),
    ) -> Prediction:
        """Do what `predict` does. prepare: gives the rows of the images, and is called when the tasks are known to take some."""
        return await self._answer(Images(prepare), tasks, About(top_k=top_k, vectors=vectors, show=show), options)

    async def predict_texts(
        self,
        texts: Sequence[str],
        tasks: Sequence[str] | None,
        top_k: int | None = None,
        options: RequestOptions = _NO_OPTIONS,
        *,
        truncate: bool = False,
        vectors: Vectors = "list",
        show: Collection[Shown] = (),
    ) -> Prediction:
        """Return what each of `tasks` answers about each of `texts`; None: all that take text.

        Each task's own tokenizer makes ids of them; tasks with equal tokenizers share the trunk. truncate: whether of a text that is too
        long the beginning is answered; otherwise it is refused. Raises NoTask, UnknownTask, InvalidRequest, ExtraNeeded, QueueFull,
        DeadlineExceeded, TaskFailed.
        """
        question = Texts(texts, self.lifecycle.tokenizers.of, truncate, options.partial)
        return await self._answer(question, tasks, About(top_k=top_k, vectors=vectors, show=show), options)

    async def _answer(
        self,
        question: Question[_Way],
        tasks: Sequence[str] | None,
        wanted: About,
        options: RequestOptions,
    ) -> Prediction:
        self.check_ready()
        with self.lifecycle.use() as catalog:
            return await self._predict(catalog, question, tasks, wanted, options)

    async def _predict(
        self,
        catalog: Catalog,
        question: Question[_Way],
        tasks: Sequence[str] | None,
        wanted: About,
        options: RequestOptions,
    ) -> Prediction:
        if catalog.has_canaries:
            catalog = served_by(catalog, catalog.repository.tasks if tasks is None else tasks, "", self._draw)
        known = catalog.repository.tasks
        names = question.names(known) if tasks is None else tasks
        groups, errors = question.group(known, names, wanted.top_k, options.partial)
        check_shown([known[name] for members in groups.values() for name in members], wanted.show)
        failures: dict[str, EspalierError] = {}
        tables: dict[str, dict[int, AnyAnswer]] = {}
        runs: list[SegmentRun] = []
        cached: list[str] = []
        queue_seconds = 0.0
        asked = ",".join(dict.fromkeys(names))
        note_work(asked, 0)  # also of requests whose images nobody sees
        with ExitStack() as counting:
            tallies = {
                name: counting.enter_context(self._requests.counting(name, known[name].version, rows=0))
                for members in groups.values()
                for name in members
            }
            calls = [self._call(catalog, catalog.find(members[0]), members, options)[1] for members in groups.values()]
            started = time.perf_counter()
            made = await question.prepare(groups, partial(self._check_room, calls), options.deadline)
            prepare_seconds = time.perf_counter() - started
            note_work(asked, made.count)
            for way, members in groups.items():
                if way in made.refused:
                    errors |= dict.fromkeys(members, str(made.refused[way]))
                    continue
                model = catalog.find(members[0])
                for rows in made.rows[way]:
                    answer = await self._compute(catalog, model, members, rows.inputs, options)
                    for name in members:
                        tallies[name].took(len(rows.places))
                        tallies[name].ran(_runs_of(known[name], answer.runs))
                    about = replace(wanted, pictures=rows.pictures, texts=rows.texts)
                    for name in members:
                        task = known[name]
                        if failed := [answer.errors[spec.name] for spec in task.outputs if spec.name in answer.errors]:
                            failures[name] = failed[0]
                            continue
                        values = {spec.name: answer.outputs[spec.name] for spec in task.outputs}
                        read = await read_answers(task, values, about)
                        tables.setdefault(name, {}).update(zip(rows.places, read, strict=True))
                    runs.extend(answer.runs)
                    cached.extend(answer.cached)
                    queue_seconds += answer.queue_seconds
            complete = {name: table for name, table in tables.items() if name not in failures}
            _raise_failure(None, failures, allowed=bool(complete))
        errors |= {name: str(error) for name, error in failures.items()}
        answered = {
            name: tuple(complete[name][place] for place in range(made.count)) for name in dict.fromkeys(names) if name in complete
        }
        versions = {name: known[name].version for name in answered}
        cut = {name: made.cut.get(way, frozenset()) for way, members in groups.items() for name in members}
        found = tuple(dict.fromkeys(cached))
        return Prediction(answered, tuple(runs), errors, queue_seconds, versions, prepare_seconds, cut, cached=found)

    def all_statistics(self) -> Mapping[ModelVersion, ModelStatistics]:
        """Return `statistics` of every version of a model that was asked for."""
        return self._requests.totals()

    def statistics(self, model: Model) -> ModelStatistics:
        """Return the requests that this version of `model` has had; for a segment, those that named it, not its runs for tasks."""
        return self._requests.of(model.name, model.version)

    def segment_statistics(self) -> Mapping[str, SegmentStatistics]:
        """Return what each segment has done, whoever asked."""
        return self._engine.statistics()

    async def refresh(self) -> None:
        """Have `segment_statistics` say what is so now, where somebody else keeps the count."""
        await self._engine.refresh()

    def queued_rows(self) -> Mapping[str, int]:
        """Return the rows that wait, of each model that has any."""
        return self._engine.queued_rows()

    def loaded(self) -> Mapping[str, int]:
        """Return the bytes that each segment takes that is in memory."""
        return self._engine.loaded()

    def computed_by(self) -> Mapping[str, int]:
        """Return how many of the segments in memory are computed by what, by its name and version."""
        return self._engine.computed_by()

    def check_ready(self) -> None:
        """Raise NotReady while requests are not answered."""
        if not self._ready:
            raise NotReady("The server is not ready: it is loading its models or shutting down.")

    def check_model_ready(self, model: Model) -> None:
        """Raise NotReady while requests are not answered, or not those for `model`."""
        self.check_ready()
        lost = sorted(self._lost(model))
        if lost:
            raise ModelNotReady(model.name, lost)

    def check_all_ready(self) -> None:
        """Raise NotReady unless requests for every model are answered."""
        self.check_ready()
        lost = sorted(self._engine.unavailable())
        if lost:
            raise ModelNotReady("", lost)

    def is_model_ready(self, model: Model) -> bool:
        """Whether requests for `model` are answered."""
        return self._ready and not self._lost(model)

    def unavailable(self) -> Collection[str]:
        """Return the segments that cannot be opened."""
        return self._engine.unavailable()

    def _lost(self, model: Model) -> Collection[str]:
        lost = self._engine.unavailable()
        return {*lost}.intersection(self.catalog.segments_of(model)) if lost else ()

    async def _compute(
        self, catalog: Catalog, model: Model, outputs: Sequence[str], inputs: Mapping[str, Array], options: RequestOptions
    ) -> Answer:
        """Run the plan for `outputs`. Raises TaskFailed for the first that failed, unless the options allow it."""
        plan, call = self._call(catalog, model, outputs, options)
        padded = catalog.padded_outputs(model, plan.outputs)
        answer = await (
            _padded_answer(self._engine, plan, padded, inputs, call) if padded else self._engine.infer(plan, inputs, call)
        )
        self.observer.plan_done(answer.runs, catalog.saved_steps(model, plan) * answer.parts)
        for failure in set(answer.errors.values()):  # here, where the log knows whose request it was
            if not isinstance(failure, InvalidRequest):
                log.error("%s", failure, exc_info=failure if self._is_worth_a_trace(failure) else None)
        _raise_failure(model, answer.errors, allowed=options.partial)
        return answer

    def _call(
        self, catalog: Catalog, model: Model, outputs: Sequence[str], options: RequestOptions
    ) -> tuple[ExecutionPlan, Call]:
        """Return the plan for `outputs`, and how it is to be run."""
        plan = catalog.plan(model, outputs)
        # Tasks that are asked for together are accounted to nobody in particular.
        tenant = model.name if set(outputs) <= model.outputs.keys() else ALL_TASKS
        return plan, Call(tenant, options.deadline, options.priority, catalog.rows_per_run(plan, model), keeps=True)

    def _is_worth_a_trace(self, failure: EspalierError) -> bool:
        """Whether to log where `failure` came from, a page: networks fail on some inputs, as often as somebody likes."""
        return not isinstance(failure, RepositoryError) and self._traces.may(f"{type(failure)}: {type(failure.__cause__)}")

    def _check_room(self, calls: Iterable[Call], rows: int) -> None:
        for call in calls:
            self._engine.check_room(rows, call)


async def _padded_answer(
    engine: Engine, plan: ExecutionPlan, padded: Mapping[str, PaddedOutput], inputs: Mapping[str, Array], call: Call
) -> Answer:
    """Return the answer of `engine` to `inputs`, which are padded where that lets them run with others, without what was added."""
    padding = next(iter(padded.values())).padding
    given = padding.padded(inputs)
    answer = await engine.infer(plan, given, call)
    if given is inputs:
        return answer
    length = padding.length_of(inputs)
    return replace(answer, outputs={name: padded[name].cut(values, length) for name, values in answer.outputs.items()})


def _say_assumed(tasks: Iterable[Task]) -> None:
    sentence = assumed_scores(tasks)
    if sentence:
        log.info("%s", sentence)


def _raise_failure(model: Model | None, failures: Mapping[str, EspalierError], allowed: bool) -> None:
    """model: that was asked; None: several. One that espalier did not export has one run, which fails as a whole."""
    if failures and not allowed:
        name, reason = next(iter(failures.items()))
        raise reason if model is not None and model.plain is not None else TaskFailed(name, reason)


def _row_count(model: Model, request: InferRequest) -> int:
    first = next(iter(request.inputs.values()), None)
    if first is None or not model.has_rows:
        return 0 if first is None else 1
    return first.shape[0] if first.shape else 0


def _runs_of(task: Task, runs: Sequence[SegmentRun]) -> Iterator[SegmentRun]:
    """Yield those of `runs`, made for several tasks, that `task` needed."""
    segments = {step.segment for step in task.steps}
    return (run for run in runs if run.segment in segments)
