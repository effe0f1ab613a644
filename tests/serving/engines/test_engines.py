"""The embedded engine on real ONNX segments, and what engines promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.errors import RepositoryError
from contract.plan import ExecutionPlan, PlanStep, make_plan
from contract.repository import Repository, read_repository
from contract.system import available_cores, cgroup_cores, whole_cores
from serving.engines.base import Answer, Engine
from serving.engines.embedded import EmbeddedEngine, session_options
from serving.engines.in_memory import InMemoryEngine
from serving.errors import NotReady
from tests.serving.nets import TASK_NAMES, images, whole


@asynccontextmanager
async def started(engine: Engine) -> AsyncIterator[Engine]:
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tasks=st.lists(st.sampled_from(TASK_NAMES), min_size=1, unique=True), rows=st.integers(1, 5))
def test_the_embedded_engine_answers_as_the_whole_networks(embedded: EmbeddedEngine, tasks: list[str], rows: int) -> None:
    async def infer() -> None:
        async with started(embedded):
            answer = await embedded.infer(make_plan(embedded._repository, tasks), {"image": images(rows)})
        for task in tasks:
            np.testing.assert_allclose(answer.outputs[task], whole(task, images(rows)), rtol=1e-4, atol=1e-5)

    asyncio.run(infer())


def test_statistics_count_requests_and_not_the_warm_up(embedded: EmbeddedEngine) -> None:
    async def infer() -> None:
        async with started(embedded):
            assert embedded.statistics()["trunk"].runs == 0
            await embedded.infer(make_plan(embedded._repository, ["probe", "colour"]), {"image": images(3)})
            await embedded.infer(make_plan(embedded._repository, ["late"]), {"image": images(2)})

    asyncio.run(infer())
    done = embedded.statistics()
    assert {name: (done[name].runs, done[name].rows) for name in ("trunk", "suffix", "branch-late", "tuned-b")} == {
        "trunk": (2, 5),
        "suffix": (1, 6),
        "branch-late": (1, 2),
        "tuned-b": (0, 0),
    }
    assert done["trunk"].seconds > 0
    assert done["trunk"].last_run_ms > 0 == done["tuned-b"].last_run_ms


@pytest.mark.parametrize("kind", ["embedded", "engine"])
def test_an_engine_answers_between_start_and_aclose_only(
    kind: str, request: pytest.FixtureRequest, repository: Repository
) -> None:
    engine: Engine = request.getfixturevalue(kind)
    plan = make_plan(repository, ["late"])

    async def infer() -> None:
        await engine.aclose()
        with pytest.raises(NotReady):
            await engine.infer(plan, {"image": images(1)})
        for _ in range(2):  # closed engines can be started again
            async with started(engine):
                await engine.infer(plan, {"image": images(1)})
        with pytest.raises(NotReady):
            await engine.infer(plan, {"image": images(1)})

    asyncio.run(infer())


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_damaged_model_file_is_named(broken_repository: Path, content: bytes | None) -> None:
    file = broken_repository / "mid/1/model.onnx"
    file.write_bytes(file.read_bytes()[:150] if content is None else content)
    with pytest.raises(RepositoryError, match=r"Segment 'mid' cannot be loaded.*export the repository again") as caught:
        asyncio.run(EmbeddedEngine(read_repository(broken_repository), threads=1).start())
    assert str(broken_repository) not in str(caught.value)


def test_a_model_of_another_shape_than_its_config_is_named(broken_repository: Path) -> None:
    (broken_repository / "mid/1/model.onnx").write_bytes((broken_repository / "suffix/1/model.onnx").read_bytes())
    with pytest.raises(RepositoryError, match=r"'mid' gives float32 rows of shape \[5\], but its config.pbtxt says FP32 \[7\]"):
        asyncio.run(EmbeddedEngine(read_repository(broken_repository), threads=1).start())


def test_a_failing_segment_is_named_without_paths(embedded: EmbeddedEngine, repository: Repository) -> None:
    plan = ExecutionPlan(("image",), (PlanStep("mid", (("image",),), (("out",),)),), {"out": "out"})

    async def infer() -> Answer:
        async with started(embedded):
            return await embedded.infer(plan, {"image": images(2)})  # images where features belong

    answer = asyncio.run(infer())
    assert (answer.outputs, str(answer.errors["out"])) == ({}, "Segment 'mid' failed on 2 rows.")


def test_a_failing_function_is_named(repository: Repository) -> None:
    engine = InMemoryEngine({"trunk": lambda rows: rows / 1, "branch-late": lambda rows: [][1]})

    async def infer(task: str) -> str:
        async with started(engine):
            answer = await engine.infer(make_plan(repository, [task]), {"image": images(1)})
            return str(answer.errors[task])

    assert asyncio.run(infer("late")) == "Segment 'branch-late' failed: list index out of range"
    assert asyncio.run(infer("probe")) == "There is no function for segment 'mid'."


def test_sessions_use_the_cores_of_the_process(repository: Repository) -> None:
    assert session_options().intra_op_num_threads == available_cores()
    assert session_options(3).intra_op_num_threads == 3
    with pytest.raises(ValueError, match="threads must be at least 1, not 0"):
        EmbeddedEngine(repository, threads=0)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000", "pod/cpu.max": "400000 100000", "pod/app/cpu.max": "800000 100000"}, 4.0),
        ({"pod/app/cpu.max": "50000 100000"}, 0.5),
        ({"pod/app/cpu.max": "nonsense"}, None),
    ],
)
def test_the_tightest_quota_of_the_control_groups_counts(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    (tmp_path / "self").write_text("0::/pod/app\n")
    (tmp_path / "root/pod/app").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "root" / name).write_text(text + "\n")
    assert cgroup_cores(tmp_path / "self", tmp_path / "root") == cores


@pytest.mark.parametrize(
    ("quota", "affinity", "available", "whole"),
    [
        (None, 4, 4, 4),
        ("400000 100000", 2, 2, 2),
        ("200000 100000", 4, 2, 2),
        ("150000 100000", 4, 2, 1),
        ("50000 100000", 4, 1, 0),
    ],
)
def test_a_quota_is_rounded_up_for_threads_and_down_for_those_that_stay_awake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, affinity: int, available: int, whole: int
) -> None:
    (tmp_path / "self").write_text("0::/\n")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr("contract.system.CGROUP_FILE", tmp_path / "self")
    monkeypatch.setattr("contract.system.CGROUP_ROOT", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(affinity)), raising=False)
    assert (available_cores(), whole_cores()) == (available, whole)
