"""A segment that has run here is not run again for a check while it is the same; everything else is checked as ever."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import serving.engines.embedded
from contract.errors import RepositoryError
from contract.plan import make_plan
from contract.repository import Repository, TensorSpec
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.onnxruntime.runtime import OnnxRuntime
from serving.engines.sessions.checked import CheckedSegments
from serving.engines.sessions.runtime import SegmentFile, SessionStoreOptions
from serving.engines.sessions.store import SessionStore
from serving.errors import SegmentTooLarge
from tests.serving.engines.sessions.test_store import CPU, check, files_of
from tests.serving.nets import TASK_NAMES, images, whole

FACTS = ("onnxruntime 1", "a processor")


@pytest.fixture
def own(repository: Repository, tmp_path: Path) -> Repository:
    """A copy that may be changed, written long ago."""
    path = Path(shutil.copytree(repository.path, tmp_path / "own"))
    return replace(repository, path=path)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "checked.txt"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The segments that are checked by a run from now on."""
    found: list[str] = []
    load = OnnxRuntime.load

    def note(self: OnnxRuntime, file: SegmentFile) -> object:
        found.append(file.segment.name)
        return load(self, file)

    monkeypatch.setattr(OnnxRuntime, "load", note)
    return found


def remembering(record: Path | None, *facts: str, settled_s: float = 0.0) -> CheckedSegments:
    return CheckedSegments(record, facts or FACTS, settled_s, OnnxRuntime(CPU).computed_by)


def store_of(record: Path | None, *facts: str) -> SessionStore:
    return SessionStore(OnnxRuntime(CPU), None, remembering(record, *facts))


def test_what_has_run_is_not_run_again_by_the_next_process(own: Repository, record: Path, runs: list[str]) -> None:
    store_of(record).open(files_of(own))
    assert sorted(runs) == sorted(own.segments)
    runs.clear()
    store = store_of(record)
    store.open(files_of(own))
    assert set(store.loaded()) == set(own.segments)
    check(store, "mid")
    assert not runs


def test_nothing_is_known_of_another_runtime_or_without_a_record(own: Repository, record: Path, runs: list[str]) -> None:
    store_of(record).open(files_of(own, "mid"))
    store_of(record, "onnxruntime 2", "a processor").open(files_of(own, "mid"))
    store_of(None).open(files_of(own, "mid"))
    assert runs == ["mid"] * 3


def test_what_one_runtime_has_run_is_checked_where_another_computes_it(own: Repository, record: Path, runs: list[str]) -> None:
    for computed_by in ("openvino 1", "onnxruntime 1", "openvino 1"):
        known = CheckedSegments(record, FACTS, 0.0, lambda segment, name=computed_by: name)  # type: ignore[misc]
        SessionStore(OnnxRuntime(CPU), None, known).open(files_of(own, "mid"))
    assert runs == ["mid"] * 2


@pytest.mark.parametrize("change", ["written", "replaced", "times", "says", "boot", "beside"])
def test_what_is_not_the_same_is_checked(
    own: Repository, record: Path, runs: list[str], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_of(record).open(files_of(own, "mid"))
    (file,) = files_of(own, "mid")
    content = file.model.read_bytes()
    if change == "written":
        file.model.write_bytes(content)
    elif change == "replaced":
        file.model.unlink()
        file.model.write_bytes(content)
    elif change == "times":
        os.utime(file.model, (1, 1))
    elif change == "beside":
        file.model.with_name("more.bin").write_bytes(b"weights")
    elif change == "says":
        (output,) = file.segment.outputs
        file = replace(file, segment=replace(file.segment, outputs=(TensorSpec(output.name, output.dtype, (99,)),)))
    else:
        monkeypatch.setattr("serving.engines.sessions.checked.current_boot", lambda: "another")
    runs.clear()
    if change == "says":
        with pytest.raises(RepositoryError, match=r"but its config\.pbtxt says FP32"):
            store_of(record).open([file])
    else:
        store_of(record).open([file])
    assert runs == ["mid"]


def test_one_that_is_known_and_cannot_be_opened_is_loaded_as_ever(
    own: Repository, record: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime may have others open what it cannot, and finds that out when it loads."""
    store_of(record).open(files_of(own, "mid"))
    runs.clear()
    calls, open_session = [], OnnxRuntime.open

    def fail(self: OnnxRuntime, file: SegmentFile, threads: int | None = None) -> object:
        calls.append(threads)
        if len(calls) == 1:
            raise RepositoryError("It cannot be compiled again.")
        return open_session(self, file, threads)

    monkeypatch.setattr(OnnxRuntime, "open", fail)
    store = store_of(record)
    store.open(files_of(own, "mid"))
    check(store, "mid")
    assert runs == ["mid"]


def test_a_start_refuses_a_segment_that_was_good_and_is_damaged(own: Repository, record: Path) -> None:
    store_of(record).open(files_of(own))
    model = own.model_file("suffix")
    model.write_bytes(model.read_bytes()[:100])
    with pytest.raises(RepositoryError, match="Segment 'suffix' cannot be loaded"):
        store_of(record).open(files_of(own), at_once=0)


def test_one_that_is_written_while_it_is_closed_is_checked_when_it_is_opened(own: Repository, record: Path) -> None:
    store_of(record).open(files_of(own))
    store = store_of(record)
    assert sorted(store.open(files_of(own), at_once=0)) == sorted(own.segments)
    with own.model_file("mid").open("r+b") as stream:  # in place: what is kept of it changes, too
        stream.write(bytes(100))
    with pytest.raises(RepositoryError, match="Segment 'mid' cannot be loaded"):
        check(store, "mid")
    assert store.unavailable() == ("mid",)


def test_what_was_written_just_now_is_not_remembered(own: Repository, record: Path, runs: list[str]) -> None:
    """Another write within the clock's tick would not show."""
    for _ in range(2):
        SessionStore(OnnxRuntime(CPU), None, remembering(record, settled_s=3600)).open(files_of(own, "mid"))
    assert runs == ["mid", "mid"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"half a li", b"x" * 20_000_000])
def test_a_record_that_is_none_costs_only_time(own: Repository, record: Path, runs: list[str], content: bytes) -> None:
    record.parent.mkdir(mode=0o700)
    record.write_bytes(content)
    store_of(record).open(files_of(own, "mid"))
    assert runs == ["mid"]
    assert record.stat().st_size < 20_000_000
    record.parent.chmod(0o777)
    store_of(record).open(files_of(own, "mid"))
    assert runs == ["mid", "mid"]  # others could have written it


def remember_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engines open 2 segments at once, and remember those that were written just now."""
    monkeypatch.setattr(serving.engines.embedded, "_AT_ONCE", 2)
    monkeypatch.setattr(serving.engines.embedded, "CheckedSegments", partial(CheckedSegments, settled_s=0.0))


def test_of_many_those_that_are_known_are_opened_behind_the_start(
    own: Repository, record: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_at_once(monkeypatch)
    go, open_behind = threading.Event(), SessionStore.open_behind
    monkeypatch.setattr(SessionStore, "open_behind", lambda self, names: go.wait(20) and open_behind(self, names))
    options = EngineOptions(SessionStoreOptions(1, "cpu"), checked_file=record)

    async def start(opened: set[str]) -> None:
        engine = EmbeddedEngine(own, options=options)
        await engine.start()
        assert {*engine.loaded()} == opened
        for task in ("probe", *TASK_NAMES):
            answer = await engine.infer(make_plan(own, [task]), {"image": images(2)})
            np.testing.assert_allclose(answer.outputs[task], whole(task, images(2)), rtol=1e-4, atol=1e-5)
            go.set()
        await until(lambda: {*engine.loaded()} == {*own.segments})
        await engine.aclose()
        assert not engine.loaded()

    asyncio.run(start({*own.segments}))
    assert sorted(runs) == sorted(own.segments)
    runs.clear()
    go.clear()
    asyncio.run(start({"trunk", "suffix"}))  # those of most tasks
    assert not runs


def test_the_end_does_not_wait_for_what_is_still_to_be_opened(
    own: Repository, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_at_once(monkeypatch)
    store_of(record, *facts_of(own, record)).open(files_of(own))
    opened: list[str] = []
    began, go, open_session = threading.Event(), threading.Event(), OnnxRuntime.open

    def slow(self: OnnxRuntime, file: SegmentFile, threads: int | None = None) -> object:
        opened.append(file.segment.name)
        if len(opened) > 2:
            began.set()
            go.wait(20)
        return open_session(self, file, threads)

    monkeypatch.setattr(OnnxRuntime, "open", slow)

    async def start() -> None:
        engine = EmbeddedEngine(own, options=EngineOptions(SessionStoreOptions(1, "cpu"), checked_file=record))
        await engine.start()
        await until(began.is_set)
        end = asyncio.create_task(engine.aclose())
        await asyncio.sleep(0.05)
        go.set()
        await end
        assert not engine.loaded()

    asyncio.run(start())
    assert len(opened) == 3


def test_one_that_cannot_be_opened_behind_the_start_is_not_available(
    own: Repository, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_of(record).open(files_of(own))
    store = store_of(record)
    left = store.open(files_of(own), at_once=2)
    with own.model_file(left[0]).open("r+b") as stream:
        stream.write(bytes(100))
    store.open_behind(left)
    assert store.unavailable() == (left[0],)
    assert {*store.loaded()} == {*own.segments} - {left[0]}


def test_one_that_is_written_while_it_is_checked_is_not_remembered(
    own: Repository, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = OnnxRuntime.load

    def overwritten(self: OnnxRuntime, file: SegmentFile) -> object:
        session = load(self, file)
        file.model.write_bytes(bytes(100))
        return session

    monkeypatch.setattr(OnnxRuntime, "load", overwritten)
    store_of(record).open(files_of(own, "mid"))
    assert not remembering(record).knows(files_of(own, "mid")[0])


def test_one_that_is_too_large_is_refused_at_the_start_even_if_it_has_run_here(own: Repository, record: Path) -> None:
    store_of(record).open(files_of(own))
    sizes = {name: OnnxRuntime(CPU).memory_of(file) for name, file in zip(own.segments, files_of(own), strict=True)}
    files = sorted(files_of(own), key=lambda file: sizes[file.segment.name])
    store = SessionStore(OnnxRuntime(CPU), sizes[files[-1].segment.name] - 1, remembering(record))
    with pytest.raises(SegmentTooLarge):
        store.open(files, make_room=False, at_once=0)
    assert not store.loaded()


def facts_of(repository: Repository, record: Path) -> list[str]:
    """What an engine's record says that checks depend on."""
    engine = EmbeddedEngine(repository, options=EngineOptions(SessionStoreOptions(1, "cpu"), checked_file=record))
    assert engine._store._checked is not None
    return engine._store._checked._facts[1:]


async def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
