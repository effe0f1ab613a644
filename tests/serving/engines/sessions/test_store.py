"""The session store: opening on first use, closing what is not used, never what runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import RepositoryError
from contract.plan import make_plan
from contract.repository import Repository, Segment
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.onnxruntime.runtime import OnnxRuntime, session_store
from serving.engines.onnxruntime.session import segment_threads
from serving.engines.sessions.runtime import SegmentFile, SessionStoreOptions
from serving.engines.sessions.store import SessionStore
from serving.errors import EngineError, SegmentClosed, SegmentTooLarge
from tests.serving.nets import LAYERS, TASK_NAMES, images, whole, write_repository

CPU = SessionStoreOptions(threads=1, provider="cpu")


def files_of(repository: Repository, *names: str) -> list[SegmentFile]:
    return [SegmentFile(repository.segments[name], repository.model_file(name)) for name in names or repository.segments]


def rows_for(name: str, rows: int) -> np.ndarray:
    if name == "trunk":
        return images(rows)
    return np.random.default_rng(rows).normal(size=(rows, LAYERS[name].sizes[0])).astype(np.float32)


def sizes_of(repository: Repository) -> dict[str, int]:
    """What each segment takes, as the store counts it."""
    store = session_store(CPU)
    store.open(files_of(repository))
    sizes = dict(store.loaded())
    store.close_all()
    return sizes


def limited(repository: Repository, count: int) -> SessionStore:
    """A store that knows all segments, with room for any `count` of them and no more."""
    sizes = sorted(sizes_of(repository).values())
    limit = sum(sizes[-count:])
    assert limit < sum(sizes[: count + 1])
    store = session_store(replace(CPU, memory_limit_bytes=limit))
    store.declare(files_of(repository))
    return store


def check(store: SessionStore, name: str, rows: int = 2) -> None:
    (result,) = store.run(name, [rows_for(name, rows)])
    np.testing.assert_allclose(result, LAYERS[name](rows_for(name, rows)), rtol=1e-4, atol=1e-5)


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_declared_segment_opens_on_first_use(repository: Repository) -> None:
    store = session_store(CPU)
    store.declare(files_of(repository))
    assert not store.loaded()
    check(store, "mid")
    check(store, "mid", rows=5)
    assert list(store.loaded()) == ["mid"]
    store.close_all()
    assert not store.loaded()
    with pytest.raises(EngineError, match="'mid' is not loaded"):
        check(store, "mid")


def test_memory_is_counted_per_session(repository: Repository) -> None:
    model = repository.model_file("mid").stat().st_size
    assert sizes_of(repository)["mid"] == 250_000 + model


@settings(max_examples=12, deadline=None)
@given(uses=st.lists(st.sampled_from(list(LAYERS)), max_size=12), room=st.integers(1, 4))
def test_the_segments_used_last_stay_open(repository: Repository, uses: list[str], room: int) -> None:
    store = limited(repository, room)
    for name in uses:
        check(store, name)
    recent = list(dict.fromkeys(reversed(uses)))[:room]
    assert set(store.loaded()) == set(recent)
    assert sum(store.loaded().values()) == store._used_bytes
    store.close_all()
    assert store._used_bytes == 0


def test_opening_without_making_room_leaves_the_rest_for_first_use(repository: Repository) -> None:
    store = limited(repository, 3)
    names = list(LAYERS)
    store.open(files_of(repository, *names), make_room=False)
    assert list(store.loaded()) == [name for name in repository.segments if name in names[:3]]
    check(store, names[5])
    assert names[5] in store.loaded()
    store.open(files_of(repository, *names))  # checks each of them, one after the other
    assert set(store.loaded()) == set(names[-3:])


def test_a_segment_larger_than_the_limit_is_refused(repository: Repository) -> None:
    store = session_store(replace(CPU, memory_limit_bytes=200_000))
    with pytest.raises(SegmentTooLarge, match=r"'mid' needs about 0\.3 MB of memory, more than the limit of 0\.2 MB"):
        store.open(files_of(repository, "mid"), make_room=False)
    store = session_store(replace(CPU, memory_limit_bytes=10))
    store.declare(files_of(repository, "mid"))
    with pytest.raises(SegmentTooLarge, match=r"0\.3 MB of memory, more than the limit of 10 bytes; raise"):
        check(store, "mid")


@pytest.mark.parametrize("damage", ["truncated", "shape", "gone"])
def test_all_segments_open_or_none(broken_repository: Path, damage: str, repository: Repository) -> None:
    model = broken_repository / "suffix/1/model.onnx"
    sentence = {"truncated": "cannot be loaded", "shape": r"gives float32 rows of shape \[7\]", "gone": "has no model.onnx"}[
        damage
    ]
    if damage == "gone":
        model.unlink()
        model.parent.rmdir()
    else:
        other = broken_repository / ("mid" if damage == "shape" else "suffix") / "1/model.onnx"
        model.write_bytes(other.read_bytes()[: None if damage == "shape" else 100])
    broken = replace(repository, path=broken_repository)
    store = session_store(CPU)
    store.open(files_of(repository, "trunk"))
    with pytest.raises(RepositoryError, match=f"Segment 'suffix' {sentence}.*export the repository again") as caught:
        store.open(files_of(broken, "trunk", "mid", "suffix"))
    assert str(broken_repository) not in str(caught.value)
    assert list(store.loaded()) == ["trunk"]
    check(store, "trunk")
    with pytest.raises(EngineError, match="'mid' is not loaded"):
        check(store, "mid")
    store.open(files_of(repository, "mid", "suffix"))  # mended
    check(store, "suffix")


def test_a_failing_run_lets_go_of_the_session(repository: Repository) -> None:
    store = limited(repository, 1)
    with pytest.raises(EngineError, match=r"^Segment 'mid' failed on 2 rows\.$"):
        store.run("mid", [images(2)])
    check(store, "suffix")  # mid can be closed
    assert list(store.loaded()) == ["suffix"]


def test_concurrent_first_uses_open_once(repository: Repository) -> None:
    store = session_store(CPU)
    store.declare(files_of(repository))
    barrier = threading.Barrier(16)

    def use(_: int) -> int:
        barrier.wait(10)
        check(store, "trunk")
        return id(store._slots["trunk"].session)

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(use, range(16)))) == 1
    assert store._used_bytes == store.loaded()["trunk"]  # a second opening would have been counted too


@pytest.mark.parametrize("action", ["close", "evict"])
def test_a_segment_that_runs_is_not_closed(repository: Repository, action: str) -> None:
    store = limited(repository, 1)
    running = store._acquire("mid")
    done = threading.Event()
    thread = in_thread(lambda: (store.close(["mid"]) if action == "close" else check(store, "suffix"), done.set()))  # type: ignore[func-returns-value]
    assert not done.wait(0.1)
    assert running.session is not None
    if action == "close":
        with pytest.raises(EngineError, match="not loaded"):  # no run begins any more
            check(store, "mid")
    store._release(running)
    thread.join(10)
    assert done.is_set()
    assert running.session is None


def test_closing_frees_the_memory_that_an_opening_waits_for(repository: Repository) -> None:
    """Closing waits for the opening, which waits for memory of another segment that is closed with it."""
    store = limited(repository, 1)
    running = store._acquire("mid")
    opener = in_thread(lambda: check(store, "suffix"))
    while not store._slots["suffix"].opening:
        opener.join(0.001)
    closer = in_thread(lambda: store.close(["mid", "suffix"]))
    while "mid" in store._slots:
        closer.join(0.001)
    store._release(running)
    opener.join(10)
    closer.join(10)
    assert not opener.is_alive()
    assert not closer.is_alive()
    assert store._used_bytes == 0


@pytest.mark.slow
def test_threads_that_open_run_and_close_get_right_answers(tmp_path: Path) -> None:
    repository = write_repository(tmp_path)
    store = limited(repository, 2)
    names = list(LAYERS)

    def work(seed: int) -> int:
        answers = 0
        for name in np.random.default_rng(seed).choice(names, 60):
            try:
                check(store, str(name), rows=1 + seed)
                answers += 1
            except EngineError as error:
                assert "is not loaded" in str(error)  # closed by another thread  # noqa: PT017
            if seed == 0 and answers % 10 == 9:
                store.close([str(name)])
                store.declare(files_of(repository, str(name)))
        return answers

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(work, range(6)))
    assert sum(answers) > 6 * 50
    assert sum(store.loaded().values()) == store._used_bytes <= (store._memory_limit_bytes or 0)
    store.close_all()
    assert store._used_bytes == 0


def test_small_segments_take_one_thread() -> None:
    segment = LAYERS["mid"].segment()
    assert segment_threads(segment, 4) == 1
    assert segment_threads(replace(segment, macs=10**9), 4) == 4
    assert segment_threads(replace(segment, macs=0), None) is None  # unknown: as many as there are
    with pytest.raises(ValueError, match="threads must be at least 1, not 0"):
        session_store(SessionStoreOptions(threads=0))


def test_the_engine_serves_more_tasks_than_memory_holds(repository: Repository) -> None:
    limit = limited(repository, 3)._memory_limit_bytes
    engine = EmbeddedEngine(repository, options=EngineOptions(replace(CPU, memory_limit_bytes=limit)))

    async def infer() -> None:
        await engine.start()
        assert {"trunk", "suffix"} < set(engine.loaded())  # those of most tasks first
        for task in (*TASK_NAMES, *TASK_NAMES):
            answer = await engine.infer(make_plan(repository, [task]), {"image": images(2)})
            np.testing.assert_allclose(answer.outputs[task], whole(task, images(2)), rtol=1e-4, atol=1e-5)
        await engine.aclose()
        assert not engine.loaded()

    asyncio.run(infer())


def test_what_is_to_run_at_once_opens_nothing(repository: Repository) -> None:
    store = limited(repository, 1)
    for name in ("mid", "unknown"):
        with pytest.raises(SegmentClosed, match=f"^Segment '{name}' is closed; open it first\\.$"):
            store.run_open(name, [rows_for("mid", 1)])
    assert not store.loaded()
    check(store, "mid")
    (result,) = store.run_open("mid", [rows_for("mid", 2)])
    np.testing.assert_allclose(result, LAYERS["mid"](rows_for("mid", 2)), rtol=1e-4, atol=1e-5)
    check(store, "suffix")  # takes its place, so its run is over
    assert list(store.loaded()) == ["suffix"]
    store.close_all()


def test_a_segment_that_is_evicted_between_the_look_and_the_run_is_not_opened_on_the_event_loop(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = sizes_of(repository)
    room = sum(sizes[name] for name in ("trunk", "mid", "suffix", "head-probe")) + 1000
    options = EngineOptions(replace(CPU, memory_limit_bytes=room))
    engine = EmbeddedEngine(repository, options=options)
    opened_in: list[str] = []
    open_session = OnnxRuntime.open

    def note(self: OnnxRuntime, file: SegmentFile, threads: int | None = None) -> object:
        opened_in.append(threading.current_thread().name)
        return open_session(self, file, threads)

    monkeypatch.setattr(OnnxRuntime, "open", note)

    async def go() -> None:
        await engine.start()
        plan = make_plan(repository, ["probe"])
        await engine.infer(plan, {"image": images(1)})
        for name in LAYERS:
            for _ in range(60):
                engine._scheduler._times.note(name, 1, 1e-6)  # short, whatever the machine was busy with
        asked = asyncio.ensure_future(engine.infer(plan, {"image": images(2)}))
        asyncio.get_running_loop().call_soon(evict)  # between the turn that looks and the turn that runs
        answer = await asked
        np.testing.assert_allclose(answer.outputs["probe"], whole("probe", images(2)), rtol=1e-4, atol=1e-5)
        await engine.aclose()

    def evict() -> None:
        assert engine._store.is_open("head-probe")
        thread = in_thread(lambda: check(engine._store, "tuned-a"))
        thread.join(20)
        assert not all(engine._store.is_open(name) for name in ("trunk", "mid", "suffix", "head-probe"))
        opened_in.clear()

    asyncio.run(go())
    assert opened_in
    assert all(name.startswith("segments-") for name in opened_in)


class Tripling:
    """A runtime of a few lines, whose sessions are numbers: what they triple, with how many threads."""

    name = "tripling 1"

    def load(self, file: SegmentFile) -> int:
        return 0

    def open(self, file: SegmentFile, threads: int | None = None) -> int:
        return threads or 0

    def run(self, segment: Segment, session: int, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        if session == 3:
            raise OSError("/a/path/of/ours")
        return [3 * inputs[0]]

    def memory_of(self, file: SegmentFile) -> int:
        return 100

    def has_one_thread(self, segment: Segment) -> bool:
        return False


def test_another_runtime_is_a_class_of_its_own_and_nothing_else(repository: Repository) -> None:
    store = SessionStore(Tripling(), memory_limit_bytes=250)
    store.open(files_of(repository, "trunk", "mid"))
    np.testing.assert_array_equal(store.run("mid", [np.ones((2, 5))])[0], np.full((2, 5), 3.0))
    store.open(files_of(repository, "suffix"))
    assert store.loaded() == {"mid": 100, "suffix": 100}
    store.close(["mid"])
    with pytest.raises(EngineError, match=r"^Segment 'suffix' failed on 2 rows\.$"):
        store.run("suffix", [np.ones((2, 5))], threads=3)
    np.testing.assert_array_equal(store.run("suffix", [np.ones((2, 5))], threads=2)[0], np.full((2, 5), 3.0))
    store.close_all()
    assert not store.loaded()


def test_the_session_store_loads_no_runtime() -> None:
    script = (
        "import sys, serving.engines.sessions.store, serving.engines.scheduling.scheduler; sys.exit('onnxruntime' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
