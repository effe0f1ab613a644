"""What is counted: requests, runs, and the runs that sharing saved."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.errors import InvalidRequest, UnknownTask
from contract.histogram import DURATION_BOUNDS_S, DurationCounter
from contract.plan import make_plan
from contract.repository.config import ALL_TASKS
from contract.repository.model import Repository, Step, Task
from serving.catalog import SavedSteps
from serving.engines.base import SegmentRun
from serving.engines.in_memory import InMemoryEngine
from serving.engines.statistics import RunStatistics
from serving.errors import NotAnImage
from serving.observe.events import NullObserver
from serving.observe.families import cumulative
from serving.observe.prometheus import Metrics
from serving.protocol.describe import model_statistics
from serving.requests import InferRequest, RequestedOutput
from serving.router import Router
from serving.statistics import MOST_GONE, RequestCounter, failure_reason
from tests.serving.nets import CHAINS, IMAGE, LAYERS, MAX_ROWS, TASK_NAMES, images, make_repository, make_task
from tests.serving.observe.test_metrics import Samples, samples
from tests.serving.observe.test_metrics import value as said

PARTS = ("input", "infer", "output")


class Savings(NullObserver):
    def __init__(self) -> None:
        self.saved: list[int] = []
        self.runs: list[SegmentRun] = []

    def plan_done(self, runs: Sequence[SegmentRun], steps_saved: int) -> None:
        self.saved.append(steps_saved)
        self.runs.extend(runs)


@given(st.lists(st.one_of(st.sampled_from(DURATION_BOUNDS_S), st.floats(0, 20)), max_size=40))
def test_a_histogram_holds_for_every_bound_how_many_are_not_above_it(values: list[float]) -> None:
    counter = DurationCounter()
    for value in values:
        counter.add(value)
    found = counter.snapshot()
    expected = [float(sum(value <= bound for value in values)) for bound in (*DURATION_BOUNDS_S, np.inf)]
    assert [count for _, count in cumulative(found)] == expected
    assert [float(bound) for bound, _ in cumulative(found)] == [*DURATION_BOUNDS_S, np.inf]
    assert (found.count, found.total) == (len(values), pytest.approx(sum(values)))


def test_of_versions_that_are_gone_those_asked_last_are_remembered_and_those_that_still_answer() -> None:
    counter = RequestCounter()
    with counter.counting("late", "1", 1), counter.counting("served", "1", 1):
        for number in range(2 * MOST_GONE):
            with counter.counting("gone", str(number), 1):
                pass
            counter._sums["gone", str(number)].last_request_ms = number  # of which a millisecond has many
        counter.forget({("served", "1"), ("never asked", "1")})
        newest = {("gone", str(number)) for number in range(MOST_GONE, 2 * MOST_GONE)}
        assert counter.totals().keys() == {("late", "1"), ("served", "1")} | newest
    assert counter.of("late", "1").successes == 1
    counter.forget({("gone", "150")})
    assert len(counter.totals()) == MOST_GONE + 1


@pytest.mark.parametrize("tasks", [names for size in (1, 2, 3, 4) for names in combinations(TASK_NAMES, size)])
def test_saved_is_what_the_tasks_take_one_by_one_less_what_they_take_together(tasks: tuple[str, ...]) -> None:
    engine, savings = InMemoryEngine(LAYERS), Savings()

    async def work() -> None:
        router = Router(make_repository(), engine, savings)
        await router.start()
        await router.infer(InferRequest(ALL_TASKS, {IMAGE.name: images(2)}, tuple(map(RequestedOutput, tasks))))

    asyncio.run(work())
    assert savings.saved == [sum(len(CHAINS[task]) for task in tasks) - len(engine.runs)]
    assert [(run.segment, run.rows) for run in savings.runs] == [(run.segment, run.rows) for run in engine.runs]
    assert all(run.started_ns > 10**18 and run.queue_seconds > 0 for run in savings.runs)


def test_a_request_in_parts_saves_in_each_of_them() -> None:
    savings = Savings()

    async def work() -> None:
        router = Router(make_repository(), InMemoryEngine(LAYERS), savings)
        await router.start()
        outputs = (RequestedOutput("colour"), RequestedOutput("parity"))
        await router.infer(InferRequest(ALL_TASKS, {IMAGE.name: images(MAX_ROWS)}, outputs))

    asyncio.run(work())  # the suffix stacks both tasks: three rows at a time; trunk and suffix are saved
    assert savings.saved == [2 * 2]


def test_outputs_of_one_task_save_nothing() -> None:
    late = make_task("late")
    tap = Step("mid", ("tap-trunk",), ("aside",))
    both = Task("late", (*late.steps, tap), late.inputs, (*late.outputs, type(IMAGE)("aside", "FP32", (7,))), MAX_ROWS)
    family = make_repository()
    repository = Repository(family.path, family.segments, {"late": both, "probe": family.tasks["probe"]})
    saved = SavedSteps(repository)
    assert saved.of(make_plan(repository, ["late"])) == 0
    assert saved.of(make_plan(repository, ["late", "probe"])) == 2  # trunk and mid
    assert saved.of(make_plan(repository, ["late", "aside", "probe"])) == 2
    assert saved.of(make_plan(repository, ["aside", "probe"])) == 2


def test_a_request_is_pending_until_it_is_counted_and_takes_the_time_of_its_runs() -> None:
    counter = RequestCounter()
    with counter.counting("late", "1", rows=3) as tally:
        assert (counter.of("late", "1").pending, counter.of("late", "1").successes) == (1, 0)
        tally.ran([SegmentRun("trunk", 3, 0.02, queue_seconds=0.3), SegmentRun("branch-late", 3, 0.04, queue_seconds=0.1)])
    done = counter.of("late", "1")
    assert (done.pending, done.successes, done.rows, done.duration.count) == (0, 1, 3, 1)
    assert (done.compute.total, done.queue.total) == (pytest.approx(0.06), pytest.approx(0.4))
    assert counter.of("late", "2") == type(done)()


def test_failures_are_counted_by_reason() -> None:
    counter = RequestCounter()
    for error in (NotAnImage("no"), UnknownTask("x", []), NotAnImage("no"), asyncio.CancelledError(), RuntimeError("secret")):
        with pytest.raises(type(error)), counter.counting("late", "1", rows=1):
            raise error
    done = counter.totals()["late", "1"]
    assert done.failures_by_reason == {"NotAnImage": 2, "UnknownTask": 1, "Cancelled": 1, "Internal": 1}
    assert (done.failures, done.successes, done.pending, done.rows) == (5, 0, 0, 0)
    assert failure_reason(KeyError("x")) == "Internal"


def test_nothing_is_lost_between_threads() -> None:
    requests, runs = RequestCounter(), RunStatistics(["trunk"])

    def work() -> None:
        for _ in range(2000):
            with requests.counting("late", "1", rows=2):
                runs.add(SegmentRun("trunk", 2, 0.001), [0.1, 0.2, 0.3])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (requests.of("late", "1").successes, requests.of("late", "1").rows, requests.of("late", "1").pending) == (
        8000,
        16000,
        0,
    )
    done = runs.totals()["trunk"]
    assert (done.runs, done.rows, done.queue.count) == (8000, 16000, 24000)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1), st.lists(st.floats(0, 1), min_size=1, max_size=3)), max_size=20))
def test_runs_are_summed_by_rows_and_waits_by_request(added: list[tuple[int, float, list[float]]]) -> None:
    counter = RunStatistics([])
    for rows, seconds, waits in added:
        counter.add(SegmentRun("s", rows, seconds), waits)
    if not added:
        assert counter.totals() == {}
        return
    done = counter.totals()["s"]
    assert (done.runs, done.rows) == (len(added), sum(rows for rows, _, _ in added))
    assert done.seconds == pytest.approx(sum(seconds for _, seconds, _ in added))
    assert done.queue.count == sum(len(waits) for _, _, waits in added)
    assert {rows: batch.runs for rows, batch in done.batches.items()} == {
        size: sum(rows == size for rows, _, _ in added) for size in sorted({rows for rows, _, _ in added})
    }


def served_together() -> tuple[dict[str, Any], Samples]:
    """Return what a router says in the protocol, by model, and in the metrics, after requests that waited for each other."""
    all_asked = threading.Event()

    def slow_trunk(rows: NDArray[Any]) -> NDArray[Any]:
        assert all_asked.wait(20)
        time.sleep(0.005)
        return LAYERS["trunk"](rows)

    engine, metrics = InMemoryEngine({**LAYERS, "trunk": slow_trunk}, max_batch_rows=6), Metrics()
    asked = [("late", 2, ()), ("late", 5, ()), ("probe", 2, ()), (ALL_TASKS, 1, ("colour", "parity")), ("trunk", 1, ())]

    async def work() -> Router:
        router = Router(make_repository(), engine)
        metrics.watch(router)
        await router.start()
        answers = asyncio.gather(
            *(
                router.infer(InferRequest(model, {"input" if model == "trunk" else IMAGE.name: images(rows)}, _wanted(outputs)))
                for model, rows, outputs in asked
            )
        )
        for _ in range(20):  # until they wait
            await asyncio.sleep(0)
        all_asked.set()
        await answers
        with pytest.raises(InvalidRequest):
            await router.infer(InferRequest("trunk", {"other": images(1)}))
        await router.predict(list(images(2)), ["late", "probe"])
        return router

    router = asyncio.run(work())
    stats = model_statistics(router, router.catalog.all_versions()).model_stats
    return {model.name: model for model in stats}, samples(metrics.text().decode())


def _wanted(outputs: Sequence[str]) -> tuple[RequestedOutput, ...]:
    return tuple(map(RequestedOutput, outputs))


def test_counts_of_a_models_durations_are_its_requests_and_the_metrics_say_the_same() -> None:
    """perf_analyzer ends where the counts of one model differ."""
    models, found = served_together()
    durations = {"success": "request", "queue": "queue", **{f"compute_{part}": f"compute_{part}" for part in PARTS}}
    for name, model in models.items():
        stats, labels = model.inference_stats, {"model": name, "version": "1"}
        assert {getattr(stats, duration).count for duration in durations} == {stats.success.count}
        for duration, metric in durations.items():
            us = said(found, f"nv_inference_{metric}_duration_us", **labels)
            assert us == pytest.approx(getattr(stats, duration).ns / 1000, abs=1)
        assert said(found, "nv_inference_request_success", **labels) == stats.success.count
        assert said(found, "nv_inference_count", **labels) == model.inference_count
        assert said(found, "nv_inference_exec_count", **labels) == model.execution_count
        failures = [
            count
            for (metric, pairs), count in found.items()
            if metric == "nv_inference_request_failure" and labels.items() <= {*pairs}
        ]
        assert sum(failures) == stats.fail.count
    assert {name: models[name].inference_stats.success.count for name in ("late", "probe", ALL_TASKS)} == {
        "late": 3, "probe": 2, ALL_TASKS: 1,
    }  # fmt: skip


def test_a_segments_requests_are_timed_from_when_they_could_run() -> None:
    models, _ = served_together()
    trunk = models["trunk"]
    stats = trunk.inference_stats
    assert (stats.success.count, trunk.inference_count, stats.fail.count) == (6, 13, 1)
    assert trunk.execution_count < 6
    assert stats.queue.ns > 5_000_000
    assert stats.success.ns == pytest.approx(stats.queue.ns + stats.compute_infer.ns, abs=2)
    runs_ns = sum(batch.compute_infer.ns for batch in trunk.batch_stats)
    assert sum(batch.compute_infer.count for batch in trunk.batch_stats) == trunk.execution_count
    assert sum(batch.batch_size * batch.compute_output.count for batch in trunk.batch_stats) == 13
    assert stats.compute_infer.ns > runs_ns + 4_000_000  # of which several were in one: it counts in full for each
    suffix = models["suffix"]
    assert (suffix.inference_stats.success.count, suffix.inference_count) == (4, 2 * 1 + 2 + 2)  # one took it on two streams


def test_a_tasks_durations_add_up_the_runs_that_it_needed() -> None:
    engine = InMemoryEngine(LAYERS)

    async def work() -> list[Any]:
        router = Router(make_repository(), engine)
        await router.start()
        await router.predict(list(images(2)), ["late", "probe"])
        return list(model_statistics(router, [router.catalog.find(name) for name in ("late", "probe")]).model_stats)

    late, probe = asyncio.run(work())
    for task in (late, probe):
        assert 0 < task.inference_stats.compute_infer.ns < task.inference_stats.success.ns
        assert not task.batch_stats
    of_probe = sum(run.seconds for run in engine.runs if run.segment in CHAINS["probe"])  # late's branch is not its
    assert probe.inference_stats.compute_infer.ns == pytest.approx(of_probe * 1e9, abs=2)
