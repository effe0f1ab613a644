"""A task is served only if it answers its recorded sample as its whole network did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from contract.dtypes import Array
from contract.errors import RepositoryError
from contract.plan import ExecutionPlan
from contract.repository import ALL_TASKS, Canary, Step, Task, TensorSpec, read_repository
from contract.repository.config import all_tasks_config, kept_config, segment_config, task_config, to_text
from contract.repository.record import OutputRecord, ParityRecord
from contract.repository.sample import sample_rows
from serving.engines.base import Answer, Call, Engine
from serving.engines.embedded import EmbeddedEngine
from serving.engines.in_memory import InMemoryEngine
from serving.errors import LoadFailed, QueueFull, WrongAnswer
from serving.parity import check_answers
from serving.protocol.status import wire_codes
from serving.requests import InferRequest
from serving.router import Router
from tests.serving.nets import IMAGE, LAYERS, Layer, images, make_repository, make_task, whole, write_repository

pytestmark = pytest.mark.slow

NEW = Layer("branch-new", (7, 4), 1, seed=50, is_head=True)
WRONG = Layer("branch-new", (7, 4), 1, seed=51, is_head=True)
NEWER = Step("branch-new", ("tap-trunk",), ("late",))


def recorded(task: Task, values: np.ndarray) -> Task:
    """`task` with the row `values` as the recorded answer."""
    record = OutputRecord(tuple(float(value) for value in values.reshape(-1)), scale=1.0)
    return replace(task, parity=ParityRecord((record,), 0.02))


def sample() -> np.ndarray:
    return np.asarray(sample_rows(IMAGE))


def late() -> Task:
    return recorded(make_task("late"), whole("late", sample()))


def newer(version: str = "2") -> Task:
    """A version of `late` that ends in `NEW`, which is recorded."""
    task = replace(late(), steps=(late().steps[0], NEWER), version=version)
    return recorded(task, NEW(LAYERS["trunk"](sample())))


def write_task(repo: Path, task: Task) -> None:
    (repo / task.name / "config.pbtxt").write_text(to_text(task_config(task)))


def write_branch(repo: Path, layer: Layer) -> None:
    """Write the segment `branch-new` with the weights of `layer`, which its configuration claims are those that it should have."""
    folder = repo / layer.name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(layer.model(), folder / "model.onnx")
    (repo / layer.name / "config.pbtxt").write_text(to_text(segment_config(layer.segment())))


def put_newer(repo: Path, layer: Layer) -> None:
    write_branch(repo, layer)
    write_task(repo, newer())
    (repo / "late/1").rename(repo / "late/2")
    others = [make_task(name) for name in ("probe", "colour", "parity")]
    (repo / ALL_TASKS / "config.pbtxt").write_text(to_text(all_tasks_config([*others, newer()])))


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """The family, in which the answer of `late` is recorded."""
    write_repository(tmp_path / "repo")
    write_task(tmp_path / "repo", late())
    return tmp_path / "repo"


def serve(path: Path, work: Callable[[Router], Awaitable[None]], engine: Engine | None = None, **options: bool) -> None:
    async def run() -> None:
        repository = read_repository(path)
        router = Router(repository, engine or EmbeddedEngine(repository, threads=1))
        try:
            await router.start(**options)
            await work(router)
        finally:
            await router.aclose()

    asyncio.run(run())


async def nothing(router: Router) -> None:
    assert router.ready


async def answer(router: Router) -> Any:
    return (await router.infer(InferRequest("late", {"image": images(2)}))).outputs["late"]


def test_a_task_that_answers_its_record_is_loaded(repo: Path) -> None:
    async def work(router: Router) -> None:
        put_newer(repo, NEW)
        await router.load("late")
        assert router.catalog.find("late").version == "2"
        np.testing.assert_allclose(await answer(router), NEW(LAYERS["trunk"](images(2))), rtol=1e-4, atol=1e-5)

    serve(repo, work)


def test_a_wrong_but_valid_segment_is_refused_and_the_old_version_serves_on(repo: Path) -> None:
    async def work(router: Router) -> None:
        put_newer(repo, WRONG)
        before = router.catalog
        with pytest.raises(
            LoadFailed, match=r"nothing has changed: Version 2 of task 'late' answers .* in 'late', where 0.02 is"
        ):
            await router.load("late")
        assert router.catalog is before
        assert "branch-new" not in router.loaded()  # what was opened for it is closed
        np.testing.assert_allclose(await answer(router), whole("late", images(2)), rtol=1e-4, atol=1e-5)
        write_branch(repo, NEW)
        await router.load("late")  # the right weights of the same name were not shadowed by the wrong ones
        assert router.catalog.find("late").version == "2"

    serve(repo, work)


def test_a_record_that_was_tampered_with_fails_the_load_of_that_task_and_of_all_tasks(repo: Path) -> None:
    async def work(router: Router) -> None:
        assert late().parity is not None
        write_task(repo, recorded(late(), np.add(whole("late", sample()), [0, 0, 0, 0.03])))
        for name in ("late", ALL_TASKS):
            with pytest.raises(LoadFailed) as refused:
                await router.load(name)
            assert wire_codes(refused.value).http == 400
            assert isinstance(refused.value.__cause__, WrongAnswer)
        await router.load("probe")  # which is compared with nothing
        assert "branch-late" in router.loaded()  # the old version has it
        await answer(router)
        write_task(repo, recorded(late(), np.add(whole("late", sample()), [0, 0, 0, 0.019])))
        await router.load("late")

    serve(repo, work, InMemory())


class InMemory(InMemoryEngine):
    """The family and `branch-new`."""

    def __init__(self, **changed: Callable[..., Any]) -> None:
        super().__init__({**LAYERS, "branch-new": NEW, **changed})


def test_a_canary_must_answer_its_own_record(repo: Path) -> None:
    async def work(router: Router) -> None:
        write_branch(repo, NEW)
        (repo / "late/canary").mkdir()
        for good in (False, True):
            canary = newer() if good else recorded(newer(), whole("late", sample()))
            (repo / "late/canary/config.pbtxt").write_text(to_text(kept_config(Canary(canary, 0.5))))
            if good:
                await router.load("late")
            else:
                with pytest.raises(LoadFailed, match="Version 2 of task 'late' answers its recorded sample"):
                    await router.load("late")
            assert router.catalog.has_canaries == good

    serve(repo, work, InMemory())


@pytest.mark.parametrize("function", [lambda rows: LAYERS["branch-late"](rows) * np.nan, lambda rows: 1 / 0])
def test_an_engine_that_computes_nonsense_or_fails_is_not_believed(repo: Path, function: Callable[..., Any]) -> None:
    async def work(router: Router) -> None:
        await router.unload("late")
        with pytest.raises(LoadFailed, match=r"error of nan|branch-late' failed"):
            await router.load("late")
        assert "late" not in router.repository.tasks

    serve(repo, work, InMemory(**{"branch-late": function}))


def test_a_start_compares_only_when_it_is_asked_to(repo: Path) -> None:
    serve(repo, nothing, InMemory(), check_samples=True)
    write_task(repo, recorded(late(), np.zeros(4)))

    async def load(router: Router) -> None:
        await router.load("probe")
        with pytest.raises(LoadFailed, match="Version 1 of task 'late'"):
            await router.load("late")  # which is what is served already

    serve(repo, load, InMemory())
    with pytest.raises(WrongAnswer, match="Version 1 of task 'late'"):
        serve(repo, nothing, InMemory(), check_samples=True)


def test_a_record_of_another_kind_of_sample_is_passed_over(repo: Path) -> None:
    task = recorded(late(), np.zeros(4))
    assert task.parity is not None
    write_task(repo, replace(task, parity=replace(task.parity, sample=2, outputs=())))
    serve(repo, nothing, InMemory(), check_samples=True)


@pytest.mark.parametrize("records", [(), (OutputRecord((1.0,), 1.0),), (OutputRecord((1.0,) * 4, 1.0), None)])
def test_a_record_that_does_not_fit_the_outputs_is_refused(repo: Path, records: tuple[OutputRecord | None, ...]) -> None:
    write_task(repo, replace(late(), parity=ParityRecord(records, 0.02)))
    with pytest.raises(RepositoryError, match="recorded sample of task 'late' does not fit its outputs"):
        read_repository(repo)


def test_a_record_that_is_damaged_names_the_task(repo: Path) -> None:
    config = repo / "late/config.pbtxt"
    config.write_text(config.read_text().replace('tolerance\\": 0.02', 'tolerance\\": nan'))
    with pytest.raises(RepositoryError, match=r"configuration of task 'late' is incomplete or damaged \(parity_sample"):
        read_repository(repo)


def test_each_output_is_compared_with_its_own_record() -> None:
    family = make_repository()
    outputs = tuple(TensorSpec(f"two.{name}", "FP32", (size,)) for name, size in (("late", 4), ("hidden", 7)))
    steps = (Step("trunk", ("image",), ("two.hidden",)), Step("branch-late", ("two.hidden",), ("two.late",)))
    hidden = tuple(float(value) for value in LAYERS["trunk"](sample())[0])
    good, bad = OutputRecord(hidden, 1.0), OutputRecord((*hidden[:-1], 2.0), 1.0)

    async def check(record: OutputRecord) -> None:
        task = Task("two", steps, (IMAGE,), outputs, 6, parity=ParityRecord((None, record), 0.02))
        engine = InMemory()
        await engine.start()
        await check_answers(engine, replace(family, tasks={"two": task}), [task])
        await engine.aclose()

    asyncio.run(check(good))
    with pytest.raises(WrongAnswer, match=r"'two\.hidden'"):
        asyncio.run(check(bad))


def test_a_queue_that_is_full_at_times_does_not_fail_a_load(repo: Path) -> None:
    engine = Crowded()

    async def work(router: Router) -> None:
        await router.load("late")
        assert engine.refusals == 0

    serve(repo, work, engine)


class Crowded(InMemory):
    """Refuses twice."""

    refusals = 2

    async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call = Call()) -> Answer:  # noqa: B008 (frozen)
        if self.refusals:
            self.refusals -= 1
            raise QueueFull(1, 1)
        return await super().infer(plan, inputs, call)
