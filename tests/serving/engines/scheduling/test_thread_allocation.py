"""Runs side by side: how the cores are shared out, and that nothing but the time depends on it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.dtypes import Array
from contract.plan import ExecutionPlan, PlanStep, make_plan
from contract.repository import Repository
from serving.engines.base import Answer, Call
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.onnxruntime.runtime import session_store
from serving.engines.scheduling.batches import RunSegment
from serving.engines.scheduling.fair_queue import FairQueue
from serving.engines.scheduling.plan_execution import PlanExecution
from serving.engines.scheduling.scheduler import Scheduler
from serving.engines.scheduling.thread_allocation import ThreadAllocation, halving
from serving.engines.sessions.runtime import SegmentFile, SessionStoreOptions
from serving.engines.sessions.store import SessionStore
from serving.errors import EngineError
from tests.serving.nets import LAYERS, TASK_NAMES, images, make_repository, whole, write_repository

REPOSITORY = make_repository()
LARGE = 2_000_000  # MACs, with which a segment takes more than one thread


@given(st.integers(1, 64), st.integers(0, 64), st.integers(0, 100))
def test_a_run_takes_what_is_free_divided_among_those_that_could_begin(threads: int, free: int, runs: int) -> None:
    allocation = halving(threads)
    free = min(free, threads)
    width = allocation.width(free, runs)
    if not free:
        assert width == 0
        return
    beginning = max(1, min(runs, free))
    assert width * beginning <= free
    assert width in allocation.widths
    assert all(wider * beginning > free for wider in allocation.widths if wider > width)


def test_one_alone_takes_everything_and_many_take_one_each() -> None:
    assert halving(1) == ThreadAllocation(1)
    assert halving(6).widths == (6, 3, 1)
    assert [halving(8).width(8, runs) for runs in (0, 1, 2, 3, 4, 5, 9)] == [8, 8, 4, 2, 2, 1, 1]
    assert [halving(8).width(free, 1) for free in range(9)] == [0, 1, 2, 2, 4, 4, 4, 4, 8]
    assert [ThreadAllocation(3).width(free, 1) for free in range(4)] == [0, 1, 1, 1]


@pytest.mark.parametrize(("capacity", "widths"), [(2, ()), (2, (2,)), (2, (1, 2)), (1, (2, 1)), (4, (2, 2, 1)), (0, (1,))])
def test_lanes_that_make_no_sense_are_refused(capacity: int, widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"widths must descend to 1|needs as many"):
        ThreadAllocation(capacity, widths)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(TASK_NAMES), st.integers(1, 4), st.sampled_from(["keep", "forget", "take"]))))
def test_the_queue_knows_how_many_runs_wait(steps: list[tuple[str, int, str]]) -> None:
    limit = 3
    queue = FairQueue(lambda name: limit)
    waiting: list[PlanExecution] = []
    for number, (task, rows, then) in enumerate(steps):
        flow = PlanExecution(make_plan(REPOSITORY, [task]), {"image": images(rows)}, Call(task), number)
        queue.push(flow.start()[0])
        waiting.append(flow)
        if then == "forget":
            queue.forget(waiting.pop(0))
        elif then == "take":
            taken = [work.execution for work in queue.take()]
            waiting = [flow for flow in waiting if flow not in taken]
    # All begin with the trunk. What has more rows than the limit is still one run.
    assert queue.runs(1000) == min(len(waiting), -(-sum(flow.rows for flow in waiting) // limit))
    assert bool(queue.runs(0)) == bool(waiting)


class Machine:
    """Segments that note on how many shares they run, and how many were taken at most. gate: held up while it is not set.

    seconds: that each takes at least. What takes less than a millisecond is not run side by side.
    """

    def __init__(self, seconds: float = 0.005) -> None:
        self._seconds = seconds
        self.widths: list[tuple[str, int]] = []
        self.most = self._now = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self._lock = threading.Lock()

    def run_on(self, width: int) -> RunSegment:
        def run(name: str, inputs: Sequence[Array]) -> Sequence[Array]:
            with self._lock:
                self.widths.append((name, width))
                self._now += width
                self.most = max(self.most, self._now)
            self.entered.release()
            self.gate.wait(20)
            time.sleep(self._seconds)
            try:
                return [LAYERS[name](*inputs)]
            finally:
                with self._lock:
                    self._now -= width

        return run


def _scheduler(machine: Machine, allocation: ThreadAllocation, limit: int = 1) -> Scheduler:
    return Scheduler(machine.run_on(0), lambda name: limit, allocation=allocation, run_on=machine.run_on)


def _infer(scheduler: Scheduler, tasks: Sequence[str], rows: int = 1, seed: int = 0) -> asyncio.Task[Answer]:
    rows_of = {"image": images(rows, seed)}
    return asyncio.ensure_future(scheduler.infer(make_plan(REPOSITORY, tasks), rows_of, Call(tasks[0])))


def test_one_request_alone_runs_on_all_lanes_and_its_branches_side_by_side() -> None:
    machine = Machine()

    async def go() -> None:
        scheduler = _scheduler(machine, halving(2))
        scheduler.start()
        await _infer(scheduler, ["late"])
        assert {width for _, width in machine.widths} == {2}
        machine.widths.clear()
        machine.gate.clear()
        all_tasks = _infer(scheduler, TASK_NAMES)
        await asyncio.to_thread(machine.entered.acquire)
        machine.gate.set()
        await all_tasks
        await scheduler.aclose()

    asyncio.run(asyncio.wait_for(go(), 30))
    assert machine.widths[0] == ("trunk", 2)
    assert machine.widths[1][1] == machine.widths[2][1] == 1
    assert machine.most == 2


def test_requests_that_wait_together_run_side_by_side() -> None:
    machine = Machine()

    async def go() -> None:
        scheduler = _scheduler(machine, halving(2))
        scheduler.start()
        machine.gate.clear()
        first = _infer(scheduler, ["probe"])
        for _ in range(4):  # of earlier runs and of this one
            await asyncio.sleep(0)
        await asyncio.to_thread(machine.entered.acquire)
        others = [_infer(scheduler, ["probe"], seed=seed) for seed in (1, 2)]
        await asyncio.sleep(0.01)
        assert machine.widths == [("trunk", 2)]  # all shares are taken
        machine.gate.set()
        await asyncio.gather(first, *others)
        await scheduler.aclose()

    asyncio.run(asyncio.wait_for(go(), 30))
    assert machine.widths[1][1] == machine.widths[2][1] == 1


def test_what_takes_no_time_is_batched_rather_than_run_side_by_side() -> None:
    machine = Machine(seconds=0)

    async def go() -> None:
        scheduler = _scheduler(machine, halving(2), limit=8)
        scheduler.start()
        for name in LAYERS:
            scheduler._times.note(name, 1, 6e-5)  # brief; a request is not short
        machine.gate.clear()
        plan = make_plan(REPOSITORY, TASK_NAMES)
        asked = [asyncio.ensure_future(scheduler.infer(plan, {"image": images(1, seed)}, Call("a"))) for seed in range(4)]
        await asyncio.sleep(0.01)
        machine.gate.set()
        await asyncio.gather(*asked)
        await scheduler.aclose()

    asyncio.run(asyncio.wait_for(go(), 30))
    assert {width for _, width in machine.widths} == {2}


def test_what_can_begin_at_once_in_one_request_begins_at_once() -> None:
    machine = Machine()
    machine.gate.clear()
    steps = (PlanStep("mid", (("x",),), (("y",),)), PlanStep("tuned-a", (("x",),), (("z",),)))
    plan = ExecutionPlan(("x",), steps, {"y": "y", "z": "z"})

    async def go() -> None:
        scheduler = _scheduler(machine, halving(2))
        scheduler.start()
        asked = asyncio.ensure_future(scheduler.infer(plan, {"x": np.zeros((1, LAYERS["mid"].sizes[0]), np.float32)}, Call("a")))
        begun = [await asyncio.to_thread(machine.entered.acquire, timeout=10) for _ in steps]
        machine.gate.set()
        await asked
        await scheduler.aclose()
        assert all(begun)

    asyncio.run(asyncio.wait_for(go(), 60))
    assert machine.most == 2


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(TASK_NAMES), min_size=1, unique=True), st.integers(1, 4)), min_size=1, max_size=8
    ),
    st.sampled_from([halving(1), halving(2), halving(5), ThreadAllocation(3), ThreadAllocation(4, (2, 1))]),
    st.integers(1, 4),
)
def test_answers_do_not_depend_on_the_lanes_and_no_more_are_taken_than_there_are(
    asked: list[tuple[list[str], int]], allocation: ThreadAllocation, limit: int
) -> None:
    machine = Machine(seconds=0)

    async def go() -> list[Answer]:
        scheduler = _scheduler(machine, allocation, limit)
        scheduler.start()
        answers = await asyncio.gather(*(_infer(scheduler, tasks, rows, seed) for seed, (tasks, rows) in enumerate(asked)))
        await scheduler.aclose()
        return answers

    for seed, ((tasks, rows), answer) in enumerate(zip(asked, asyncio.run(asyncio.wait_for(go(), 30)), strict=True)):
        for task in tasks:
            np.testing.assert_allclose(answer.outputs[task], whole(task, images(rows, seed)), rtol=1e-4, atol=1e-5)
    assert machine.most <= allocation.capacity


def test_a_run_on_half_of_the_machine_costs_its_tenant_half() -> None:
    def clock(share: float) -> float:
        queue = FairQueue(lambda name: 1)
        queue.push(PlanExecution(make_plan(REPOSITORY, ["late"]), {"image": images(1)}, Call("a"), 0).start()[0])
        queue.charge(queue.take(), 3.0, share)
        return queue._clock["a"]

    assert (clock(1.0), clock(0.5)) == (3.0, 1.5)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return write_repository(tmp_path_factory.mktemp("repository"))


def _files(repository: Repository, macs: int = LARGE) -> list[SegmentFile]:
    return [
        SegmentFile(replace(segment, macs=macs), repository.model_file(name)) for name, segment in repository.segments.items()
    ]


def _store(repository: Repository, macs: int = LARGE, limit: int | None = None) -> SessionStore:
    store = session_store(SessionStoreOptions(threads=2, provider="cpu", memory_limit_bytes=limit))
    store.open(_files(repository, macs))
    return store


def test_a_run_with_fewer_threads_has_a_session_of_its_own_and_the_same_answer(repository: Repository) -> None:
    store = _store(repository)
    own = store.loaded()["trunk"]
    (wide,) = store.run("trunk", [images(3)])
    (narrow,) = store.run("trunk", [images(3)], 1)
    assert wide.tobytes() == narrow.tobytes()
    assert store.loaded()["trunk"] == 2 * own
    sessions = [store._slots[key].session for key in ("trunk", ("trunk", 1))]
    assert [session and session.get_session_options().intra_op_num_threads for session in sessions] == [2, 1]
    (again,) = store.run("trunk", [images(3)], threads=1)
    assert again.tobytes() == wide.tobytes()
    assert store.loaded()["trunk"] == 2 * own
    store.close(["trunk"])
    assert "trunk" not in store.loaded()
    with pytest.raises(EngineError, match="Segment 'trunk' is not loaded"):
        store.run("trunk", [images(3)], 1)
    store.close_all()
    assert store._used_bytes == 0


@pytest.mark.parametrize("why", ["small", "no room", "damaged"])
def test_the_stores_own_session_does_where_there_can_be_no_other(tmp_path: Path, why: str) -> None:
    repository = write_repository(tmp_path)
    full = sum(_store(repository).loaded().values())
    store = _store(repository, macs=LARGE if why != "small" else 1, limit=full if why == "no room" else None)
    if why == "damaged":
        repository.model_file("trunk").write_bytes(b"")
    (found,) = store.run("trunk", [images(2)], 1)
    np.testing.assert_allclose(found, LAYERS["trunk"](images(2)), rtol=1e-4, atol=1e-5)
    assert sum(store.loaded().values()) == full  # nothing was closed for it, and nothing opened
    store.close_all()


def test_sessions_with_fewer_threads_make_room_for_others(repository: Repository) -> None:
    store = _store(repository, limit=2 * sum(_store(repository).loaded().values()))
    for name in LAYERS:
        rows = images(1) if name == "trunk" else np.zeros((1, LAYERS[name].sizes[0]), np.float32)
        store.run(name, [rows], 1)
    assert store._used_bytes == store._memory_limit_bytes
    store.close(["mid"])
    mid = next(file for file in _files(repository) if file.segment.name == "mid")
    more = [replace(mid, segment=replace(mid.segment, name=name)) for name in ("b", "c", "d")]
    store.open(more)  # one more than what was closed has left room for
    assert {"b", "c", "d"} <= set(store.loaded())
    assert store._used_bytes <= (store._memory_limit_bytes or 0)


@pytest.mark.slow
def test_threads_that_run_on_any_number_of_threads_get_right_answers(repository: Repository) -> None:
    store = session_store(
        SessionStoreOptions(threads=3, provider="cpu", memory_limit_bytes=2 * sum(_store(repository).loaded().values()) // 3)
    )
    store.declare(_files(repository))

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for name in random.choice(list(LAYERS), 60):
            rows = images(2, seed) if name == "trunk" else random.normal(size=(2, LAYERS[name].sizes[0])).astype(np.float32)
            (found,) = store.run(str(name), [rows], random.choice([None, 1, 2]))
            np.testing.assert_allclose(found, LAYERS[str(name)](rows), rtol=1e-4, atol=1e-5)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(5)))
    assert sum(store.loaded().values()) == store._used_bytes <= (store._memory_limit_bytes or 0)
    store.close_all()
    assert store._used_bytes == 0


def test_the_engine_runs_side_by_side_where_sessions_share_their_weights(repository: Repository, tmp_path: Path) -> None:
    cached = SessionStoreOptions(threads=2, provider="cpu", cache_folder=tmp_path / "cache")
    assert EmbeddedEngine(repository, options=EngineOptions(cached))._allocation == halving(2)
    assert EmbeddedEngine(repository, options=EngineOptions(replace(cached, cache_folder=None)))._allocation == ThreadAllocation(
        1
    )
    assert EmbeddedEngine(repository, options=EngineOptions(cached, instances=3))._allocation == ThreadAllocation(3)
    large = replace(repository, segments={name: replace(segment, macs=LARGE) for name, segment in repository.segments.items()})

    async def go() -> None:
        engine = EmbeddedEngine(large, options=EngineOptions(cached))
        await engine.start()
        once = sum(engine.loaded().values())
        plan = make_plan(large, TASK_NAMES)
        answers = await asyncio.gather(*(engine.infer(plan, {"image": images(2, seed)}) for seed in range(6)))
        for seed, answer in enumerate(answers):
            for task in TASK_NAMES:
                np.testing.assert_allclose(answer.outputs[task], whole(task, images(2, seed)), rtol=1e-4, atol=1e-5)
        assert sum(engine.loaded().values()) > once
        await engine.aclose()
        assert not engine.loaded()

    asyncio.run(go())
