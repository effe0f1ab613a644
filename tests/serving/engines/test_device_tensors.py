"""Features that stay on a device between segments. The device is the CPU here: ONNX Runtime's values instead of arrays."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.dtypes import Array
from contract.plan import make_plan
from contract.repository import Repository
from serving.engines.base import Answer, Call
from serving.engines.device_tensors import Device, is_on_device, stack, whole
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.onnxruntime.providers import CPU, CUDA, TENSORRT, device_of
from serving.engines.onnxruntime.runtime import session_store
from serving.engines.onnxruntime.session import open_session, run_on_device, run_session, session_options
from serving.engines.scheduling.batches import BatchRunner, RunSegment, advance
from serving.engines.scheduling.plan_execution import PlanExecution, ReadyStep
from serving.engines.sessions.runtime import SegmentFile, SessionStoreOptions
from serving.engines.sessions.store import SessionStore
from serving.errors import EngineError
from tests.serving import nets
from tests.serving.nets import TASK_NAMES, Layer, images, make_repository

HERE = Device("cpu")
ON_DEVICE = SessionStoreOptions(threads=1, provider="cpu", device=HERE)


@dataclass
class Spy:
    """The store's run; notes what went in and came out, by segment."""

    store: SessionStore

    def __post_init__(self) -> None:
        self.taken: dict[str, Sequence[Array]] = {}
        self.given: dict[str, Sequence[Array]] = {}

    def __call__(self, name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        self.taken[name] = inputs
        self.given[name] = self.store.run(name, inputs)
        return self.given[name]

    def was_copied(self, name: str) -> bool:
        (result,) = self.given[name]
        assert is_on_device(result)
        return result.tensor.is_on_host


@pytest.fixture(scope="module")
def store(repository: Repository) -> Iterator[SessionStore]:
    store = session_store(ON_DEVICE)
    store.open(SegmentFile(segment, repository.model_file(name)) for name, segment in repository.segments.items())
    yield store
    store.close_all()


def run_together(flows: Sequence[PlanExecution], run: RunSegment, limit: int = 100) -> None:
    """Run all flows to their ends, those that wait for the same segment in one batch."""
    runner = BatchRunner(run, lambda name: limit, lambda run, waits: None)
    ready: dict[str, list[ReadyStep]] = {}

    def add(works: Sequence[ReadyStep]) -> None:
        for work in works:
            ready.setdefault(work.segment, []).append(work)

    for flow in flows:
        add(flow.start())
    while ready:
        for outcome in runner.run(ready.pop(next(iter(ready)))):
            add(list(advance(*outcome)))


def flow(tasks: Sequence[str], rows: int = 1, seed: int = 0) -> PlanExecution:
    return PlanExecution(make_plan(make_repository(), tasks), {"image": images(rows, seed)}, Call(), seed)


def check(answer: Answer, rows: int, seed: int) -> None:
    for task, values in answer.outputs.items():
        assert type(values) is np.ndarray
        np.testing.assert_allclose(values, nets.whole(task, images(rows, seed)), rtol=1e-4, atol=1e-5)


requests = st.lists(
    st.tuples(st.lists(st.sampled_from(TASK_NAMES), min_size=1, unique=True), st.integers(1, 4)), min_size=1, max_size=6
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(requests, st.sampled_from((2, 100)))
def test_every_request_gets_its_own_answer_whatever_it_was_batched_with(
    store: SessionStore, asked: list[tuple[list[str], int]], limit: int
) -> None:
    flows = [flow(tasks, rows, seed) for seed, (tasks, rows) in enumerate(asked)]
    run_together(flows, Spy(store), limit)
    for seed, ((tasks, rows), one) in enumerate(zip(asked, flows, strict=True)):
        answer = one.answer()
        assert set(answer.outputs) == set(tasks)
        check(answer, rows, seed)


@pytest.mark.slow
def test_the_engine_answers_the_same_to_the_bit_and_to_many_at_once(repository: Repository) -> None:
    async def ask(engine: EmbeddedEngine, at_once: bool) -> list[Answer]:
        plans = [make_plan(repository, tasks) for tasks in (["late"], list(TASK_NAMES), ["probe", "colour"])]
        await engine.start()
        try:
            requests = [engine.infer(plan, {"image": images(9, seed)}) for seed, plan in enumerate(plans * 3)]
            return list(await asyncio.gather(*requests)) if at_once else [await request for request in requests]
        finally:
            await engine.aclose()

    def engine(sessions: SessionStoreOptions) -> EmbeddedEngine:
        return EmbeddedEngine(repository, options=EngineOptions(sessions, instances=2))

    on_host = asyncio.run(ask(engine(SessionStoreOptions(threads=1, provider="cpu")), at_once=False))
    on_device = asyncio.run(ask(engine(ON_DEVICE), at_once=False))
    for expected, found in zip(on_host, on_device, strict=True):
        assert {name: values.tolist() for name, values in found.outputs.items()} == {
            name: values.tolist() for name, values in expected.outputs.items()
        }
    for seed, answer in enumerate(asyncio.run(ask(engine(ON_DEVICE), at_once=True))):
        check(answer, 9, seed)


@pytest.mark.parametrize("count", [1, 3])
def test_requests_that_go_on_together_cross_every_segment_without_a_copy(store: SessionStore, count: int) -> None:
    spy = Spy(store)
    flows = [flow(["probe"], 2, seed) for seed in range(count)]
    run_together(flows, spy)
    assert {name: spy.was_copied(name) for name in ("trunk", "mid", "suffix")} == dict.fromkeys(("trunk", "mid", "suffix"), False)
    assert [len(inputs[0]) for inputs in spy.taken.values()] == [2 * count] * 4
    for seed, one in enumerate(flows):
        check(one.answer(), 2, seed)


def test_all_tasks_of_one_request_take_the_trunk_from_the_device(store: SessionStore) -> None:
    spy = Spy(store)
    one = flow(TASK_NAMES, 2)
    run_together([one], spy)
    assert not spy.was_copied("trunk")
    assert not is_on_device(spy.taken["suffix"][0])  # from three branches: stacked on the host
    check(one.answer(), 2, 0)


def test_what_belongs_to_several_tasks_is_copied_once_for_all(store: SessionStore) -> None:
    spy = Spy(store)
    flows = [flow([task], 2, seed) for seed, task in enumerate(("late", "probe", "late", "colour"))]
    run_together(flows, spy)
    assert spy.was_copied("trunk")
    assert not is_on_device(spy.taken["branch-late"][0])  # rows 0-1 and 4-5
    for seed, one in enumerate(flows):
        check(one.answer(), 2, seed)


@pytest.mark.parametrize(
    ("columns", "rows", "stays"),
    [(64, slice(1, 3), True), (64, slice(0, 4), True), (7, slice(0, 3), True), (7, slice(1, 4), False)],
)
def test_some_rows_stay_where_their_address_is_aligned(columns: int, rows: slice, stays: bool) -> None:
    first, second = Layer("first", (nets.PIXELS, columns), 0, 1, takes_image=True), Layer("second", (columns, 5), 1, 2)
    sessions = [open_session(layer.model().SerializeToString(), session_options(1), (CPU,)) for layer in (first, second)]
    (features,) = run_on_device(sessions[0], [images(4)], HERE)
    assert is_on_device(features)
    (result,) = run_on_device(sessions[1], [features[rows]], HERE)
    assert features.tensor.is_on_host != stays
    (expected,) = run_session(sessions[1], [run_session(sessions[0], [images(4)])[0][rows]])
    np.testing.assert_array_equal(np.asarray(result), expected)


def test_rows_are_joined_only_in_the_order_of_their_tensor(store: SessionStore) -> None:
    (rows,), (others,) = (store.run("trunk", [images(4, seed)]) for seed in (0, 1))
    assert is_on_device(rows)
    joined = stack([rows[0:1], rows[1:3]])
    assert is_on_device(joined)
    assert (joined.shape, joined.dtype) == ((3, 7), np.float32)
    assert not rows.tensor.is_on_host
    np.testing.assert_array_equal(joined[1:][1:], np.asarray(rows)[2:3])
    for parts in ([rows[1:2], rows[0:1]], [rows[0:1], rows[2:3]], [rows[0:1], others[1:2]], [rows[0:1], np.asarray(others)[1:]]):
        copied = stack(parts)
        assert type(copied) is np.ndarray
        np.testing.assert_array_equal(copied, np.concatenate([np.asarray(part) for part in parts]))


def test_a_tensor_is_freed_after_its_last_use_and_an_answer_keeps_none(store: SessionStore) -> None:
    tensors: dict[str, weakref.ref[object]] = {}

    def run(name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        if name == "suffix":
            assert tensors["trunk"]() is None
            assert tensors["mid"]() is not None
        results = store.run(name, inputs)
        assert is_on_device(results[0])
        tensors[name] = weakref.ref(results[0].tensor)
        return results

    flows = [flow(["probe"], 1, seed) for seed in range(2)]
    run_together(flows, run)
    answers = [one.answer() for one in flows]
    assert {name: tensor() for name, tensor in tensors.items()} == dict.fromkeys(("trunk", "mid", "suffix", "head-probe"))
    check(answers[1], 1, 1)


class Lost:
    """What a device would give that is lost after the run."""

    def shape(self) -> list[int]:
        return [1, 4]

    def data_type(self) -> str:
        return "tensor(float)"

    def numpy(self) -> NoReturn:
        raise RuntimeError("CUDA failure 700")


def test_a_copy_that_fails_is_a_failure_of_its_run(store: SessionStore) -> None:
    one = flow(["late"])
    run_together([one], lambda name, inputs: [whole(Lost(), None)] if name == "branch-late" else store.run(name, inputs))
    assert str(one.answer().errors["late"]) == "Segment 'branch-late' failed on 1 rows."


def test_a_run_that_fails_on_the_device_names_its_segment(store: SessionStore) -> None:
    (rows,) = store.run("trunk", [images(2)])
    with pytest.raises(EngineError, match=r"Segment 'suffix' failed on 2 rows\."):
        store.run("suffix", [np.zeros((2, 9), np.float32)])
    with pytest.raises(EngineError, match=r"Segment 'head-probe' failed on 1 rows\."):
        store.run("head-probe", [rows[1:]])


def test_features_stay_on_the_first_gpu_where_there_is_one() -> None:
    assert device_of((CUDA, CPU)) == device_of((TENSORRT, CUDA, CPU)) == Device("cuda", 0)
    assert device_of((CPU,)) is device_of(("OpenVINOExecutionProvider", CPU)) is None
