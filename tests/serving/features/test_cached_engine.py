"""Features outlive a request: what runs, what is answered, and what happens when others fail, leave or change what is served."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.plan import make_plan
from contract.repository import Repository
from serving.engines.base import Answer, Call
from serving.engines.in_memory import InMemoryEngine
from serving.errors import DeadlineExceeded, FeaturesElsewhere
from serving.features.cached_engine import CachedEngine, with_feature_cache
from tests.serving.nets import CHAINS, LAYERS, TASK_NAMES, images, make_repository, make_task

MIB = 1 << 20
KEEPS = Call(keeps=True)
Result = TypeVar("Result")
Ask = Callable[..., Awaitable[Answer]]


class _Gate:
    """A function of a segment that waits until it is let through, where it has been closed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.begun, self.open = threading.Event(), threading.Event()
        self.fails = False

    def __call__(self, *inputs: Any) -> Any:
        self.begun.set()
        assert self.open.wait(60)
        if self.fails:
            self.fails = False
            raise ValueError("a bad moment")
        return self.function(*inputs)


def serve(
    work: Callable[[CachedEngine, InMemoryEngine], Awaitable[Result]],
    limit_bytes: int = MIB,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    repository: Repository | None = None,
) -> Result:
    async def answer() -> Result:
        inner = InMemoryEngine(functions or EXACT)
        engine = with_feature_cache(inner, repository or make_repository(), limit_bytes)
        await engine.start()
        try:
            async with asyncio.timeout(120):
                return await work(engine, inner)
        finally:
            await engine.aclose()

    return asyncio.run(answer())


class _Exact:
    """A segment in whole numbers, so that no batch changes what it gives by as much as a bit."""

    def __init__(self, name: str) -> None:
        layer = LAYERS[name]
        self.weights = np.random.default_rng(layer.seed).integers(-9, 9, layer.sizes)

    def __call__(self, x: Any) -> Any:
        return ((x.reshape(len(x), -1).astype(np.int64) @ self.weights) % 101).astype(np.float32)


EXACT = {name: _Exact(name) for name in LAYERS}


def exactly(task: str, values: Any) -> Any:
    for name in CHAINS[task]:
        values = EXACT[name](values)
    return values


async def ask(engine: CachedEngine, tasks: Sequence[str], rows: int = 2, seed: int = 0, call: Call = KEEPS) -> Answer:
    answer = await engine.infer(make_plan(make_repository(), tasks), {"image": images(rows, seed)}, call)
    assert not answer.errors
    for task in tasks:
        np.testing.assert_array_equal(answer.outputs[task], exactly(task, images(rows, seed)))
    return answer


def ran(engine: InMemoryEngine) -> list[str]:
    found = [run.segment for run in engine.runs]
    engine.runs.clear()
    return found


def test_the_second_task_of_an_image_runs_its_branch_alone_and_says_what_it_did_not_run() -> None:
    async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
        first = await ask(engine, ["colour"])
        assert first.cached == ()
        assert ran(inner) == [*CHAINS["colour"]]
        second = await ask(engine, ["late"])
        assert second.cached == ("trunk",)
        assert [run.segment for run in second.runs] == ran(inner) == ["branch-late"]
        both = await ask(engine, ["parity", "probe"])
        assert both.cached == ("trunk",)
        assert "trunk" not in ran(inner)
        done = engine.features()
        assert (done.hits, done.waits, done.misses, done.tensors) == (2, 0, 1, 1)

    serve(work)


def test_another_image_other_rows_another_type_and_another_shape_are_other_inputs() -> None:
    async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
        await ask(engine, ["late"], rows=2)
        await ask(engine, ["late"], rows=2, seed=1)
        await ask(engine, ["late"], rows=1)
        plan = make_plan(make_repository(), ["late"])
        same_bytes = images(2).view(np.int8)
        await engine.infer(plan, {"image": same_bytes}, KEEPS)
        await engine.infer(plan, {"image": images(2).reshape(2, 8, 4, 6)}, KEEPS)
        assert ran(inner).count("trunk") == 5

    serve(work)


def test_calls_that_are_no_clients_neither_take_nor_leave_anything() -> None:
    async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
        await ask(engine, ["late"], call=Call())
        assert engine.features().tensors == 0
        await ask(engine, ["late"])
        await ask(engine, ["late"], call=Call())
        assert ran(inner).count("trunk") == 3
        assert engine.features().hits == 0

    serve(work)


@contextmanager
def gate(segment: str) -> Iterator[tuple[_Gate, Mapping[str, Callable[..., Any]]]]:
    held = _Gate(EXACT[segment])
    try:
        yield held, {**EXACT, segment: held}
    finally:
        held.open.set()


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 60)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_two_at_the_same_moment_run_the_trunk_once() -> None:
    with gate("trunk") as (held, functions):

        async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
            first = asyncio.create_task(ask(engine, ["colour"]))
            await until(held.begun)
            others = [asyncio.create_task(ask(engine, [task])) for task in ("late", "parity", "late")]
            await turns()
            held.open.set()
            answers = await asyncio.gather(first, *others)
            assert ran(inner).count("trunk") == 1
            assert [answer.cached for answer in answers] == [(), ("trunk",), ("trunk",), ("trunk",)]
            assert engine.features().waits == 3

        serve(work, functions=functions)


def test_one_that_waits_gets_the_features_also_where_they_are_too_large_to_be_kept() -> None:
    with gate("trunk") as (held, functions):

        async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
            engine._features._kept.limit_bytes = 1024 + 2 * 7 * 4  # a trunk's tap of two rows, and no more
            first = asyncio.create_task(ask(engine, ["colour"]))
            await until(held.begun)
            second = asyncio.create_task(ask(engine, ["late"]))
            await turns()
            engine._features._kept.limit_bytes = 1
            held.open.set()
            await asyncio.gather(first, second)
            assert ran(inner).count("trunk") == 1
            assert engine.features().tensors == 0

        serve(work, functions=functions)


def test_those_that_wait_for_one_whose_client_goes_compute_for_themselves() -> None:
    with gate("trunk") as (held, functions):

        async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
            first = asyncio.create_task(ask(engine, ["colour"]))
            await until(held.begun)
            others = [asyncio.create_task(ask(engine, [task])) for task in ("late", "parity")]
            await turns()
            first.cancel()
            held.open.set()
            await asyncio.gather(*others)
            with pytest.raises(asyncio.CancelledError):
                await first
            assert ran(inner).count("trunk") == 2  # the one that was under way, and one for both of those that are left
            await ask(engine, ["late"])

        serve(work, functions=functions)


def test_a_run_that_fails_is_the_error_of_its_own_request_only() -> None:
    with gate("trunk") as (held, functions):

        async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
            plan = make_plan(make_repository(), ["colour"])
            held.fails = True
            first = asyncio.create_task(engine.infer(plan, {"image": images(2)}, KEEPS))
            await until(held.begun)
            second = asyncio.create_task(ask(engine, ["late"]))
            await turns()
            held.open.set()
            failed = await first
            assert list(failed.errors) == ["colour"]
            assert not failed.outputs
            await second

        serve(work, functions=functions)


def test_a_branch_that_fails_leaves_the_trunk_for_others() -> None:
    with gate("tuned-a") as (held, functions):

        async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
            held.fails = True
            held.open.set()
            failed = await engine.infer(make_plan(make_repository(), ["colour", "late"]), {"image": images(2)}, KEEPS)
            assert (list(failed.errors), list(failed.outputs)) == (["colour"], ["late"])
            ran(inner)
            await ask(engine, ["colour"])
            assert "trunk" not in ran(inner)

        serve(work, functions=functions)


def test_one_that_waits_has_its_own_deadline() -> None:
    with gate("trunk") as (held, functions):

        async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
            first = asyncio.create_task(ask(engine, ["colour"]))
            await until(held.begun)
            late = replace(KEEPS, deadline=asyncio.get_running_loop().time() + 0.01)
            with pytest.raises(DeadlineExceeded):
                await ask(engine, ["late"], call=late)
            held.open.set()
            await first

        serve(work, functions=functions)


def test_what_a_client_does_with_its_answer_changes_nobody_elses() -> None:
    """Two tasks with one network: their answer itself is a tensor that both share."""
    repository = make_repository()
    twin = replace(repository.tasks["late"], name="twin", outputs=(replace(repository.tasks["late"].outputs[0], name="twin"),))
    twin = replace(twin, steps=(twin.steps[0], replace(twin.steps[1], outputs=("twin",))))
    repository = replace(repository, tasks={"late": repository.tasks["late"], "twin": twin})

    async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
        inputs = {"image": images(2)}
        for task in ("late", "twin", "late"):
            answer = await engine.infer(make_plan(repository, [task]), inputs, KEEPS)
            np.testing.assert_array_equal(answer.outputs[task], exactly("late", images(2)))
            answer.outputs[task][:] = -1
        assert Counter(ran(inner)) == {"trunk": 1, "branch-late": 1}
        assert answer.cached == ("trunk", "branch-late")

    serve(work, repository=repository)


def test_what_a_segment_has_made_goes_with_it() -> None:
    async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
        await ask(engine, ["late"])
        await engine.release({"trunk"})
        assert (engine.features().tensors, engine.features().bytes) == (0, 0)
        await ask(engine, ["late"])
        assert engine.features().tensors == 0  # it is known no more: a request from before, which is not to leave anything
        await engine.load(make_repository())
        await ask(engine, ["late"])
        assert engine.features().tensors == 1

    serve(work)


def test_nothing_is_kept_for_a_task_that_shares_nothing_until_another_comes() -> None:
    alone = replace(make_repository(), tasks={"late": make_task("late")})

    async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
        await ask(engine, ["late"])
        assert engine.features() == replace(engine.features(), hits=0, misses=0, tensors=0)
        await engine.load(make_repository())
        await ask(engine, ["late"])
        assert engine.features().tensors == 1

    serve(work, repository=alone)


def test_engines_whose_features_are_elsewhere_are_refused() -> None:
    engine = InMemoryEngine(LAYERS)
    engine.batches_elsewhere = True  # type: ignore[misc]
    with pytest.raises(FeaturesElsewhere, match="no feature cache where other servers compute"):
        with_feature_cache(engine, make_repository(), MIB)


request = st.tuples(st.lists(st.sampled_from(TASK_NAMES), min_size=1, unique=True), st.integers(0, 3), st.booleans())
change = st.sampled_from(["unload", "load"])


@settings(max_examples=40)
@given(st.lists(st.one_of(request, change), min_size=1, max_size=12), st.sampled_from([1100, 2200, MIB]))
def test_whatever_comes_together_is_answered_as_without_it(events: list[Any], limit_bytes: int) -> None:
    """Requests, cancelled ones among them, at the same moment as tasks that go and come."""

    async def work(engine: CachedEngine, inner: InMemoryEngine) -> None:
        waiting: list[asyncio.Task[Answer]] = []
        gone: list[asyncio.Task[Answer]] = []
        for event in events:
            if event == "unload":
                await engine.load(replace(make_repository(), tasks={"late": make_task("late")}))
            elif event == "load":
                await engine.load(make_repository())
            else:
                tasks, seed, goes = event
                waiting.append(asyncio.create_task(ask(engine, tasks, seed=seed)))
                await turns(seed)
                if goes:
                    gone.append(waiting.pop())
                    gone[-1].cancel()
        await asyncio.gather(*waiting)
        await asyncio.gather(*gone, return_exceptions=True)
        kept = engine.features()
        assert 0 <= kept.bytes <= limit_bytes
        assert not engine._features._flights._under_way

    serve(work, limit_bytes)
