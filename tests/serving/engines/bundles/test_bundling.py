"""Small heads behind one trunk in the embedded engine: run together when asked together, with the answers that each gives alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.plan import make_plan
from contract.repository import Repository
from serving.engines.base import Answer
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.onnxruntime.runtime import OnnxRuntime
from serving.engines.sessions.runtime import BundleFile, SegmentFile, SessionStoreOptions
from serving.errors import CannotBundle
from tests.serving.heads import FORMS, TRUNK, Head, whole, with_heads, write_heads
from tests.serving.nets import images

HEADS = [Head(f"h{number}", 2 + number % 4, FORMS[number % len(FORMS)]) for number in range(8)]
CPU = SessionStoreOptions(threads=1, provider="cpu")


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A trunk and eight heads of all forms."""
    return write_heads(tmp_path_factory.mktemp("heads"), HEADS)


@asynccontextmanager
async def started(repository: Repository, **options: Any) -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine(repository, options=EngineOptions(**{"sessions": CPU, **options}))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


def work(action: Callable[[EmbeddedEngine], Awaitable[None]], repository: Repository, **options: Any) -> None:
    async def go() -> None:
        async with started(repository, **options) as engine:
            await asyncio.wait_for(action(engine), 60)

    asyncio.run(go())


async def ask(engine: EmbeddedEngine, repository: Repository, asked: Iterable[Head], rows: int = 1) -> Answer:
    """Ask for these heads, and compare the answers with numpy's."""
    asked = list(asked)
    answer = await engine.infer(make_plan(repository, [f"task-{head.name}" for head in asked]), {"image": images(rows)})
    assert answer.outputs.keys() | answer.errors.keys() == {f"task-{head.name}" for head in asked}
    for head in asked:
        if f"task-{head.name}" in answer.outputs:
            np.testing.assert_allclose(answer.outputs[f"task-{head.name}"], whole(head, rows), rtol=1e-4, atol=1e-5)
    return answer


async def settled(engine: EmbeddedEngine) -> None:
    """Wait until nothing is being opened or closed in the background."""
    assert engine._bundling is not None
    end = time.monotonic() + 20
    while any(not job.done() for job in list(engine._bundling._jobs.values())):  # one may begin another
        assert time.monotonic() < end
        await engine.settled(1.0)


async def warm(engine: EmbeddedEngine, repository: Repository, asked: Sequence[Head] = HEADS) -> None:
    """Ask often enough for what is asked to be a bundle."""
    for _ in range(2):
        await ask(engine, repository, asked)
    await settled(engine)


def bundles(engine: EmbeddedEngine) -> set[str]:
    return {name for name in engine._store.loaded() if name.startswith("bundle-")}


def test_heads_that_are_asked_together_become_one_session(heads: Repository) -> None:
    async def action(engine: EmbeddedEngine) -> None:
        await ask(engine, heads, HEADS)
        await settled(engine)
        assert not bundles(engine), "once is not often"
        await warm(engine, heads)
        assert len(bundles(engine)) == 1
        assert set(engine._store.loaded()) == {TRUNK.name, *bundles(engine)}, "no weight is held twice"
        answer = await ask(engine, heads, HEADS, rows=3)
        assert [run.segment for run in answer.runs] == [TRUNK.name, *(head.name for head in HEADS)]
        assert engine._store.loaded().keys() == {TRUNK.name, *bundles(engine)}, "it ran in the bundle"

    work(action, heads)


def test_statistics_and_memory_are_of_segments(heads: Repository) -> None:
    async def action(engine: EmbeddedEngine) -> None:
        await warm(engine, heads)
        await ask(engine, heads, HEADS[:5], rows=4)
        done = engine.statistics()
        assert {name: (one.runs, one.rows) for name, one in done.items()} == {
            TRUNK.name: (3, 6),
            **{head.name: (3, 6) if head in HEADS[:5] else (2, 2) for head in HEADS},
        }
        assert all(one.seconds > 0 and one.requests.total >= one.seconds for one in done.values())
        loaded = engine.loaded()
        assert loaded.keys() == heads.segments.keys()
        assert list(engine.computed_by().values()) == [len(heads.segments)]
        assert abs(sum(loaded.values()) - sum(engine._store.loaded().values())) < len(HEADS)

    work(action, heads)


def test_one_that_is_asked_alone_is_opened_again(heads: Repository) -> None:
    async def action(engine: EmbeddedEngine) -> None:
        await warm(engine, heads)
        await ask(engine, heads, HEADS[:1])
        assert engine._store.is_open("h0")
        assert not engine._store.is_open("h1")

    work(action, heads)


def test_a_head_that_fails_is_not_the_others_fault(heads: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    async def action(engine: EmbeddedEngine) -> None:
        await warm(engine, heads)
        run = engine._runtime.run

        def failing(segment: Any, session: Any, inputs: Any) -> Any:
            if segment.name == "h3" or segment.name.startswith("bundle-"):
                raise RuntimeError("no more")
            return run(segment, session, inputs)

        monkeypatch.setattr(engine._runtime, "run", failing)
        answer = await ask(engine, heads, HEADS)
        assert {name: str(error) for name, error in answer.errors.items()} == {"task-h3": "Segment 'h3' failed on 1 rows."}
        assert {run.segment for run in answer.runs} == heads.segments.keys() - {"h3"}
        assert engine.statistics()["h3"].runs == 2
        assert engine.statistics()["h4"].runs == 3

    work(action, heads)


def test_what_cannot_be_merged_runs_by_itself(tmp_path: Path) -> None:
    family = [*HEADS[:3], Head("old", opset=17)]
    repository = write_heads(tmp_path, family)

    async def action(engine: EmbeddedEngine) -> None:
        await warm(engine, repository, family)
        await warm(engine, repository, family)
        assert len(bundles(engine)) == 1
        assert engine._store.is_open("old")
        await ask(engine, repository, family)

    work(action, repository)


def test_without_room_heads_go_one_by_one(heads: Repository) -> None:
    async def sizes(engine: EmbeddedEngine) -> None:
        limit.append(sum(engine._store.loaded().values()) + 1000)

    limit: list[int] = []
    work(sizes, heads)

    async def action(engine: EmbeddedEngine) -> None:
        await warm(engine, heads)
        await warm(engine, heads)
        assert not bundles(engine)
        assert engine._store.loaded().keys() == heads.segments.keys(), "none was closed for it"

    work(action, heads, sessions=replace(CPU, memory_limit_bytes=limit[0]))


def test_bundles_that_are_closed_for_others_are_done_without(heads: Repository) -> None:
    async def action(engine: EmbeddedEngine) -> None:
        await warm(engine, heads)
        engine._store.close_idle(bundles(engine))
        await ask(engine, heads, HEADS)
        await warm(engine, heads)
        assert len(bundles(engine)) == 1, "and opened again"

    work(action, heads)


def test_an_open_bundle_serves_until_its_successor_is_there(heads: Repository) -> None:
    some, rest = HEADS[:6], HEADS[6:]

    async def action(engine: EmbeddedEngine) -> None:
        repository = with_heads(heads, some)
        await warm(engine, repository, some)
        before = bundles(engine)
        await engine.load(heads)
        await ask(engine, heads, HEADS)
        await settled(engine)
        assert len(bundles(engine)) == 1
        assert bundles(engine) != before
        assert not any(engine._store.is_open(head.name) for head in HEADS), "those that came are in it, unasked"
        await engine.release([head.name for head in rest])
        await ask(engine, repository, some)
        await settled(engine)
        assert bundles(engine) == before
        assert engine.loaded().keys() == {TRUNK.name, *(head.name for head in some)}
        await engine.release([head.name for head in some])
        await settled(engine)
        assert not bundles(engine)

    work(action, with_heads(heads, some))


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "load", "release", "settle"]),
        st.sets(st.sampled_from(HEADS), min_size=1),
        st.integers(1, 7),
    ),
    min_size=3,
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(actions=ACTIONS)
def test_answers_stay_right_while_heads_come_and_go(heads: Repository, actions: list[tuple[str, set[Head], int]]) -> None:
    async def action(engine: EmbeddedEngine) -> None:
        present = set(HEADS[:4])
        for kind, chosen, rows in actions:
            if kind == "load":
                present |= chosen
                await engine.load(with_heads(heads, sorted(present, key=lambda head: head.name)))
            elif kind == "release":
                gone = present & chosen
                present -= gone
                await engine.release([head.name for head in gone])
            elif kind == "settle":
                await settled(engine)
            elif asked := sorted(present & chosen, key=lambda head: head.name):
                repository = with_heads(heads, present)
                together = await asyncio.gather(
                    ask(engine, repository, asked, rows), ask(engine, repository, sorted(present, key=str))
                )
                assert not any(answer.errors for answer in together)

    work(action, with_heads(heads, HEADS[:4]))


def test_the_end_waits_for_what_opens_and_begins_nothing_else(heads: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bundles are wanted; the first is refused while the engine closes, and would become another one."""
    monkeypatch.setattr("serving.engines.bundles.partition.MOST_MEMBERS", 4)
    began, go = threading.Event(), threading.Event()

    def refuse(self: OnnxRuntime, file: SegmentFile) -> object:
        if not isinstance(file, BundleFile):
            return load(self, file)
        began.set()
        go.wait(20)
        raise CannotBundle(file.members[0].segment.name, "it is refused")

    load = OnnxRuntime.load
    monkeypatch.setattr(OnnxRuntime, "load", refuse)

    async def go_on() -> None:
        engine = EmbeddedEngine(heads, options=EngineOptions(CPU))
        await engine.start()
        bundling = engine._bundling
        assert bundling is not None
        for _ in range(2):
            await ask(engine, heads, HEADS)
        assert await asyncio.to_thread(began.wait, 20)
        assert len(bundling._jobs) == 2
        end = asyncio.create_task(engine.aclose())
        while not bundling._closing:
            await asyncio.sleep(0.001)
        bundling._begin(next(iter(bundling._targets.values())))  # as a late request would
        with bundling._lock:
            bundling._retire("bundle-0")
        go.set()
        await asyncio.wait_for(end, 20)
        assert bundling._pool is None
        assert not engine._store.loaded()

    asyncio.run(go_on())


def test_what_a_request_was_planned_with_stays_open_until_it_is_answered_and_counts_as_its_segments(heads: Repository) -> None:
    async def action(engine: EmbeddedEngine) -> None:
        await warm(engine, heads)
        (before,) = bundles(engine)
        plan = make_plan(heads, [f"task-{head.name}" for head in HEADS])
        assert engine._bundling is not None
        with engine._bundling.applied(plan, 1) as bundled:
            assert before in [step.segment for step in bundled.steps]
            await engine.release([head.name for head in HEADS[2:]])
            await settled(engine)
            assert len(bundles(engine)) == 2, "both are open"
            assert engine.loaded().keys() == {TRUNK.name, *(head.name for head in HEADS[:2])}
        await settled(engine)
        assert before not in bundles(engine), "at once: nobody is planned with it"
        assert engine.loaded().keys() == {TRUNK.name, *(head.name for head in HEADS[:2])}

    work(action, heads)


def test_weights_of_what_is_gone_go_also_where_no_successor_can_be_opened(
    heads: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def action(engine: EmbeddedEngine) -> None:
        await warm(engine, heads)
        (before,) = bundles(engine)
        fits = engine._store._fits
        monkeypatch.setattr(engine._store, "_fits", lambda name: not str(name).startswith("bundle-") and fits(name))
        await engine.release([HEADS[0].name])
        await settled(engine)
        assert before not in engine._store.loaded()
        monkeypatch.undo()
        await engine.load(with_heads(heads, HEADS[1:]))
        await warm(engine, with_heads(heads, HEADS[1:]), HEADS[1:])
        assert len(bundles(engine)) == 1

    work(action, heads)


def test_a_second_bundle_that_only_one_plan_wants_is_opened(heads: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.engines.bundles.partition.MOST_MEMBERS", 4)

    async def action(engine: EmbeddedEngine) -> None:
        await warm(engine, heads, HEADS[:4])
        assert len(bundles(engine)) == 1
        plan = make_plan(heads, [f"task-{head.name}" for head in HEADS])
        for _ in range(2):
            await engine.infer(plan, {"image": images(1)})
        await settled(engine)
        assert len(bundles(engine)) == 2

    work(action, heads)
