"""Tasks that come and go on the Triton engine, on a stand-in (stand_in.py)."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.plan import make_plan
from contract.repository import ALL_TASKS, Repository
from contract.repository.config import task_config, to_text
from contract.repository.record import OutputRecord, ParityRecord
from serving.engines.base import Answer
from serving.engines.triton.engine import TritonEngine
from serving.engines.triton.errors import ModelControlOff, TritonLoadFailed
from serving.errors import LoadFailed
from serving.lifecycle import served_part
from serving.requests import InferRequest
from serving.router import Router
from tests.serving.engines.triton.engine_on_stand_in import QUICK, ask, check, eventually, routed, use, with_engine, without
from tests.serving.engines.triton.test_choice import with_other_probe
from tests.serving.nets import CHAINS, LAYERS, TASK_NAMES, images, whole, write_repository
from tests.serving.stand_in import StandIn

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("send_files", [False, True], ids=["its own repository", "sent"])
def test_tasks_come_and_go_in_an_order_that_lets_requests_go_on(own: Repository, tmp_path: Path, send_files: bool) -> None:
    (tmp_path / "empty").mkdir()
    with StandIn(tmp_path / "empty" if send_files else own.path) as triton:
        before = without(own, "late")

        async def work(engine: TritonEngine) -> None:
            parts = sorted(before.segments)
            assert triton.loads == [*parts, *before.tasks, ALL_TASKS]
            triton.loads.clear()
            await engine.load(own)
            assert triton.loads == ["branch-late", "late", ALL_TASKS]
            check(await ask(engine, own, *TASK_NAMES), *TASK_NAMES)
            assert {model for model, _, _ in triton.requests} == {ALL_TASKS}
            triton.loads.clear()
            await engine.load(before)
            assert triton.loads == [ALL_TASKS, "-late"]
            check(await ask(engine, own, *TASK_NAMES), *TASK_NAMES)  # one that began before, step by step
            await engine.release({"branch-late", "trunk"})
            assert triton.loads == [ALL_TASKS, "-late", "-branch-late"]  # the trunk is in use
            triton.requests.clear()
            check(await ask(engine, before, "probe", "colour"), "probe", "colour")
            assert triton.requests == [(ALL_TASKS, ("probe", "colour"), 2)]

        use(before, triton, work, replace(QUICK, send_files=send_files))


def test_segments_that_are_over_stay_for_a_while_unless_they_are_needed_again(own: Repository) -> None:
    """Another server before the same Tritons may not know yet that they are over."""

    async def work(engine: TritonEngine) -> None:
        before = without(own, "late")
        await engine.load(before)
        await engine.release({"branch-late"})
        assert "branch-late" in triton.models
        await eventually(lambda: "branch-late" not in triton.models)
        await engine.load(own)
        await engine.load(before)
        await engine.release({"branch-late"})
        await engine.load(own)  # before its time
        await asyncio.sleep(1.5)
        assert triton.loads.count("-branch-late") == 1
        check(await ask(engine, own, "late"), "late")

    with StandIn(own.path) as triton:
        use(own, triton, work, replace(QUICK, keep_s=1.0))


def test_requests_never_get_an_answer_of_another_version(own: Repository) -> None:
    """A replaced task keeps its name on Triton. Clients of both versions ask before, while and after it is replaced."""
    new = served_part(with_other_probe(own))
    plans = {repository.tasks["probe"].version: make_plan(repository, ["probe", "late"]) for repository in (own, new)}
    right = {"1": whole("probe", images(1)), "2": LAYERS["head-probe"](_features("colour"))}

    async def check_version(engine: TritonEngine, version: str) -> None:
        answer = await engine.infer(plans[version], {"image": images(1)})
        np.testing.assert_allclose(answer.outputs["probe"], right[version], rtol=1e-4, atol=1e-5)

    async def work(engine: TritonEngine) -> None:
        done = False

        async def client(version: str) -> None:
            while not done:
                await check_version(engine, version)

        clients = [asyncio.create_task(client(version)) for version in ("1", "2")]
        for repository in (new, own) * 3:
            await engine.load(repository)
            await asyncio.sleep(0.02)
        await engine.load(new)
        done = True
        await asyncio.gather(*clients)
        triton.requests.clear()
        await check_version(engine, "2")
        assert [model for model, _, _ in triton.requests] == [ALL_TASKS]

    with StandIn(own.path) as triton:
        use(own, triton, work)


def test_a_load_waits_for_requests_on_their_way_to_what_it_replaces(own: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        held = triton.held["probe"] = threading.Event()
        asked = asyncio.create_task(ask(engine, own, "probe"))
        await eventually(lambda: bool(triton.requests))
        triton.loads.clear()
        loading = asyncio.create_task(engine.load(served_part(with_other_probe(own))))
        check(await ask(engine, own, "late"), "late")
        check(await ask(engine, own, "probe"), "probe")
        assert {model for model, _, _ in triton.requests[1:]} == {"late", *CHAINS["probe"]}
        assert triton.loads == []
        held.set()
        check(await asked, "probe")
        await loading
        assert triton.loads == ["probe", ALL_TASKS]

    with StandIn(own.path) as triton:
        use(own, triton, work)


def _features(task: str) -> np.ndarray:
    values: np.ndarray = images(1)
    for name in CHAINS[task][:3]:
        values = LAYERS[name](values)
    return values


def test_a_load_that_fails_leaves_everything_as_it_was_on_all_tritons(own: Repository, tmp_path: Path) -> None:
    before = without(own, "late")
    other = write_repository(tmp_path / "other").path  # that of a Triton on another machine
    (other / "branch-late/1/model.onnx").write_bytes(b"truncated")

    async def work(engine: TritonEngine) -> None:
        await eventually(lambda: len(engine._fleet.servers) == 2)  # type: ignore[union-attr]
        with pytest.raises(TritonLoadFailed, match=r"^Triton could not load model 'branch-late'; its log says why\.$"):
            await engine.load(own)
        for triton in (good, bad):
            assert triton.models.keys() == {*before.segments, *before.tasks, ALL_TASKS}
            assert {output.name for output in triton.models[ALL_TASKS].config.output} == {*before.tasks}
        for _ in range(4):
            check(await ask(engine, before, *before.tasks), *before.tasks)
        assert {model for model, _, _ in good.requests + bad.requests} == {ALL_TASKS}
        (other / "branch-late/1/model.onnx").write_bytes(own.model_file("branch-late").read_bytes())
        await engine.load(own)
        check(await ask(engine, own, "late"), "late")

    with StandIn(own.path) as good, StandIn(other) as bad:
        asyncio.run(with_engine(before, f"{good.url},{bad.url}", work))


def test_a_task_that_answers_wrongly_is_taken_out_of_triton_again(own: Repository) -> None:
    async def work(router: Router) -> None:
        await router.unload("late")
        await router.lifecycle.settle()
        wrong = replace(own.tasks["late"], parity=ParityRecord((OutputRecord((9.0,) * 4, 1.0),), 0.02))
        (own.path / "late/config.pbtxt").write_text(to_text(task_config(wrong)))
        before = dict(triton.models)
        with pytest.raises(LoadFailed, match="task 'late' answers its recorded sample with an error"):
            await router.load("late")
        assert triton.models.keys() == before.keys()
        triton.requests.clear()
        response = await router.infer(InferRequest(ALL_TASKS, {"image": images(2)}))
        check(Answer(response.outputs, ()), "probe", "colour", "parity")
        assert [model for model, _, _ in triton.requests] == [ALL_TASKS]

    with StandIn(own.path) as triton:
        routed(own, triton, work)


def test_a_triton_that_loads_nothing_serves_what_it_has(triton: StandIn, repository: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        changed = served_part(with_other_probe(repository))
        with pytest.raises(
            ModelControlOff, match="would have to load 'probe', but it was not started with --model-control-mode=explicit"
        ):
            await engine.load(changed)
        check(await ask(engine, repository, "probe"), "probe")
        with pytest.raises(ModelControlOff, match="'probe'"):  # it serves another version than the repository has by now
            await with_engine(changed, triton.url, work)

    use(repository, triton, work)
