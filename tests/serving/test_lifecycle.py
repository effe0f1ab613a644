"""Tasks come and go while requests run: what is served, what is opened and closed, and what a failure changes."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from contract.errors import InvalidRequest
from contract.repository import ALL_TASKS, Canary, read_repository
from contract.repository.config import LABELS_FILE, all_tasks_config, kept_config, to_text
from contract.repository.files import CANARY
from serving.engines.embedded import EmbeddedEngine
from serving.engines.in_memory import InMemoryEngine
from serving.errors import LastModel, LoadFailed, NotATask, UnknownModel
from serving.observe.logs import JsonFormatter
from serving.observe.prometheus import Metrics
from serving.requests import InferRequest
from serving.router import Router
from serving.statistics import MOST_GONE
from tests.serving.nets import CHAINS, LAYERS, TASK_NAMES, images, make_repository, make_task, whole, write_repository

pytestmark = pytest.mark.slow

Result = TypeVar("Result")


def ask(path: Path, action: Callable[[Router], Awaitable[Result]], engine: InMemoryEngine | None = None) -> Result:
    async def answer() -> Result:
        repository = read_repository(path)
        router = Router(repository, engine or EmbeddedEngine(repository, threads=1))
        await router.start()
        try:
            return await action(router)
        finally:
            await router.aclose()

    return asyncio.run(answer())  # type: ignore[arg-type]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """The family without the task `colour`, whose folder stands beside, to be put in later."""
    write_repository(tmp_path / "repo")
    take_out(tmp_path / "repo", "colour")
    return tmp_path / "repo"


def take_out(repo: Path, task: str) -> None:
    (repo / task).rename(repo.parent / task)
    write_all_tasks(repo)


def put_in(repo: Path, task: str) -> None:
    (repo.parent / task).rename(repo / task)
    write_all_tasks(repo)


def write_all_tasks(repo: Path) -> None:
    there = [make_task(name) for name in TASK_NAMES if (repo / name).is_dir()]
    (repo / ALL_TASKS / "config.pbtxt").write_text(to_text(all_tasks_config(there)))


async def infer(router: Router, task: str, rows: int = 2) -> np.ndarray:
    response = await router.infer(InferRequest(task, {"image": images(rows)}))
    np.testing.assert_allclose(response.outputs[task], whole(task, images(rows)), rtol=1e-4, atol=1e-5)
    return response.outputs[task]  # type: ignore[return-value]


def test_a_task_that_is_put_on_disk_is_served_when_it_is_loaded_and_the_others_go_on_to_the_bit(repo: Path) -> None:
    async def work(router: Router) -> None:
        before = {task: await infer(router, task) for task in ("probe", "parity", "late")}
        put_in(repo, "colour")
        with pytest.raises(UnknownModel):
            await infer(router, "colour")
        await router.lifecycle.load("colour")
        await infer(router, "colour")
        assert list(router.catalog.find(ALL_TASKS).outputs) == sorted(TASK_NAMES)
        for task, values in before.items():
            np.testing.assert_array_equal(await infer(router, task), values)

    ask(repo, work)


def test_only_what_is_new_is_opened_and_what_nobody_needs_is_closed(repo: Path) -> None:
    engine = InMemoryEngine(LAYERS)

    async def work(router: Router) -> None:
        await router.lifecycle.unload("late")
        await router.lifecycle.settle()
        # tuned-a and head-colour stand on disk without a task; what no task needs goes with the first change
        assert engine.released == {"branch-late", "tuned-a", "head-colour"}
        with pytest.raises(UnknownModel):
            await infer(router, "late")
        with pytest.raises(UnknownModel):
            router.catalog.find("branch-late")
        await infer(router, "probe")
        await router.lifecycle.load("late")  # it is on disk still
        await infer(router, "late")

    ask(repo, work, engine)


def test_a_request_ends_on_what_it_began_with_and_holds_it_open(repo: Path) -> None:
    engine = InMemoryEngine(LAYERS)

    async def work(router: Router) -> None:
        with router.lifecycle.use() as catalog, router.lifecycle.use():
            await router.lifecycle.unload("late")
            await router.lifecycle.unload("parity")
            assert "late" in catalog.models
            assert not engine.released & {"branch-late", "tuned-b"}
        await router.lifecycle.settle()
        assert engine.released >= {"branch-late", "tuned-b", "head-parity"}

    ask(repo, work, engine)


def test_the_statistics_of_segments_that_are_closed_are_gone(repo: Path) -> None:
    async def work(router: Router) -> None:
        metrics = Metrics()
        metrics.watch(router)
        await infer(router, "late")
        await router.lifecycle.unload("late")
        await router.lifecycle.settle()
        assert router.segment_statistics()["trunk"].runs == 1
        assert b"trunk" in metrics.text()
        assert b"branch-late" not in metrics.text()
        await router.lifecycle.load("late")
        assert b'nv_inference_exec_count{model="branch-late",version="1"} 0\n' in metrics.text()

    ask(repo, work)


def test_the_log_tells_what_was_loaded_and_why_it_failed(repo: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "serving.deployments")

    async def work(router: Router) -> None:
        await router.unload("late")
        model = repo / "branch-late/1/model.onnx"
        good = model.read_bytes()
        model.write_bytes(good[:150])
        await router.lifecycle.settle()
        for name, error in (("late", LoadFailed), ("nothing", UnknownModel)):
            with pytest.raises(error):
                await router.load(name)
        model.write_bytes(good)
        write_canary(repo, "late")
        await router.load("late")

    ask(repo, work)
    unloaded, failed, unknown, loaded = caplog.records
    assert re.fullmatch(r"unload late done in \d+\.\d{3} s version=1", unloaded.getMessage())
    assert re.fullmatch(r"load late failed in \d+\.\d{3} s: Model 'late' was not loaded.*'branch-late'.*", failed.getMessage())
    assert (failed.levelname, loaded.levelname) == ("WARNING", "INFO")
    assert failed.exc_info  # ONNX Runtime has said more
    assert not unknown.exc_info
    line = json.loads(JsonFormatter().format(loaded))
    assert line["seconds"] > 0
    facts = {"action": "load", "model": "late", "result": "done", "version": "1", "canary": "2", "share": 0.25}
    assert {key: line.get(key) for key in facts} == facts
    assert "reason" not in line
    assert "Unknown model 'nothing'" in json.loads(JsonFormatter().format(unknown))["reason"]


def write_canary(repo: Path, task: str) -> None:
    """Give `task` a canary that is the same network."""
    folder = repo / task / CANARY
    folder.mkdir()
    (folder / "config.pbtxt").write_text(to_text(kept_config(Canary(replace(make_task(task), version="2"), 0.25))))
    shutil.copy(repo / task / LABELS_FILE, folder)


@pytest.mark.parametrize("damage", ["truncated", "no config", "other shape"])
def test_a_load_that_fails_changes_nothing_and_says_why(repo: Path, damage: str) -> None:
    async def work(router: Router) -> None:
        await router.lifecycle.unload("late")
        await router.lifecycle.settle()
        model = repo / "branch-late/1/model.onnx"
        good = model.read_bytes()
        if damage == "truncated":
            model.write_bytes(good[:150])
        elif damage == "other shape":
            model.write_bytes((repo / "suffix/1/model.onnx").read_bytes())
        else:
            (repo / "branch-late/config.pbtxt").rename(repo / "kept")
        before = router.catalog
        with pytest.raises(LoadFailed, match=r"^Model 'late' was not loaded, and nothing has changed: .*branch-late"):
            await router.lifecycle.load("late")
        assert router.catalog is before
        await infer(router, "probe")
        model.write_bytes(good)
        if damage == "no config":
            (repo / "kept").rename(repo / "branch-late/config.pbtxt")
        await router.lifecycle.load("late")
        await infer(router, "late")

    ask(repo, work)


def test_a_repository_that_is_gone_fails_the_load_only(repo: Path) -> None:
    async def work(router: Router) -> None:
        shutil.rmtree(repo)
        with pytest.raises(LoadFailed, match="is not a folder"):
            await router.lifecycle.load("late")
        for task in ("probe", "parity", "late"):
            await infer(router, task)

    ask(repo, work)


def test_names_that_cannot_be_loaded(repo: Path) -> None:
    async def work(router: Router) -> None:
        for name, kind in (("nothing", UnknownModel), ("trunk", NotATask)):
            with pytest.raises(kind):
                await router.lifecycle.load(name)
            with pytest.raises(kind):
                await router.lifecycle.unload(name)
        with pytest.raises(NotATask):
            await router.lifecycle.unload(ALL_TASKS)
        await router.lifecycle.unload("probe")
        await router.lifecycle.unload("parity")
        with pytest.raises(LastModel, match="Task 'late' is the last one"):
            await router.lifecycle.unload("late")
        await router.lifecycle.load(ALL_TASKS)
        assert set(router.repository.tasks) == {"probe", "parity", "late"}

    ask(repo, work)


def test_loads_at_the_same_time_end_as_if_one_after_the_other(repo: Path) -> None:
    async def work(router: Router) -> None:
        put_in(repo, "colour")
        await asyncio.gather(
            router.lifecycle.load("colour"),
            router.lifecycle.unload("late"),
            router.lifecycle.load("colour"),
            router.lifecycle.unload("parity"),
        )
        assert set(router.repository.tasks) == {"probe", "colour"}

    ask(repo, work)


@pytest.mark.slow
def test_under_load_no_request_fails_while_tasks_come_and_go(repo: Path) -> None:
    async def work(router: Router) -> int:
        answers = 0
        stop = False

        async def client(task: str) -> None:
            nonlocal answers
            first = await infer(router, task, 1)
            request = InferRequest(task, {"image": images(1)})
            while not stop:
                answer = await router.infer(request)
                assert np.allclose(answer.outputs[task], first, rtol=1e-5, atol=1e-6)
                answers += 1
                await asyncio.sleep(0.002)  # clients that never pause would be all that the interpreter does

        clients = [asyncio.ensure_future(client(task)) for task in ("probe", "parity") for _ in range(3)]
        for _ in range(100):
            await router.lifecycle.unload("late")
            with pytest.raises((UnknownModel, InvalidRequest)):
                await infer(router, "late")
            await router.lifecycle.load("late")
            await infer(router, "late", 1)
        stop = True
        await asyncio.gather(*clients)
        await router.lifecycle.settle()
        assert min(router.loaded().values()) > 250_000
        assert set(router.loaded()) == {name for task in ("probe", "parity", "late") for name in CHAINS[task]}
        return answers

    assert ask(repo, work) > 100


def test_the_family_is_what_these_tests_take_it_for() -> None:
    assert set(make_repository().tasks) == {"probe", "colour", "parity", "late"}


def test_requests_that_end_while_a_change_is_under_way_do_not_pile_up_work(repo: Path) -> None:
    async def work(router: Router) -> None:
        life = router.lifecycle
        with life.use():  # which keeps the first catalogue
            put_in(repo, "colour")
            await router.load("colour")
            async with life._changing:  # as while another task is loaded
                for _ in range(100):
                    with life.use():
                        pass
                waiting = len(life._running)
        async with life._changing:
            for _ in range(100):
                with life.use():
                    pass
            assert max(waiting, len(life._running)) <= 1
        await life.settle()
        assert life._old == []

    ask(repo, work)


def test_hundreds_of_deploys_leave_no_more_behind_than_the_last_of_them(repo: Path) -> None:
    """Each is a new version of the task, which is asked for and replaced."""

    async def work(router: Router) -> None:
        deploys = MOST_GONE + 20
        metrics = Metrics()
        metrics.watch(router)
        for number in range(1, deploys):
            (repo / "late" / str(number)).rename(repo / "late" / str(number + 1))
            await router.load("late")
            assert (await router.infer(InferRequest("late", {"image": images(1)}))).version == str(number + 1)
        await router.lifecycle.settle()
        counted = [version for name, version in router.all_statistics() if name == "late"]
        assert counted == [str(number) for number in range(deploys - MOST_GONE, deploys + 1)]
        assert set(engine.statistics()) == router.repository.segments.keys()
        assert metrics.text().count(b'nv_inference_count{model="late"') == 1

    engine = InMemoryEngine(LAYERS)
    ask(repo, work, engine)


def test_what_a_newer_version_wrote_is_served_and_the_log_says_so_once(repo: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "serving.lifecycle")

    async def work(router: Router) -> None:
        assert not caplog.records
        file = next(repo.glob("*colour*/config.pbtxt"))
        file.write_text(f'{file.read_text()}parameters {{ key: "digest_version" value {{ string_value: "99" }} }}\n')
        put_in(repo, "colour")
        for _ in range(2):
            await router.lifecycle.load("colour")
            await infer(router, "colour")

    ask(repo, work)
    (record,) = caplog.records
    assert "newer version of espalier (its digests are of version 99" in record.getMessage()
    assert "upgrade espalier before you change it" in record.getMessage()
