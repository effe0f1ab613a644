"""A server that watches its repository: what changes on disk is served, what is wrong there is not, and no thread is left."""

from __future__ import annotations

import importlib.util
import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from contract.errors import ExtraNeeded
from serving import watch
from serving.observe.events import NullObserver
from serving.server import BackgroundServer
from tests.serving.exact_nets import answer, head, write_family, write_task
from tests.serving.nets import images

pytestmark = pytest.mark.slow


class Deploys(NullObserver):
    """Which loads there were, and how they went."""

    def __init__(self) -> None:
        self.all: list[tuple[str, bool]] = []

    def deployed(self, task: str, seconds: float, ok: bool, action: str = "load", version: str = "") -> None:
        self.all.append((task, ok))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_family(tmp_path / "repo", {"a": 11, "b": 12}).path


def watching(path: Path, *observers: Deploys) -> BackgroundServer:
    return BackgroundServer(path, http_port=0, grpc_port=0, threads=1, watch=True, observers=observers)


def ask(server: BackgroundServer, task: str) -> list[float] | None:
    """Return the answer to one image; None: there is no such task."""
    with tritonclient.http.InferenceServerClient(server.http_address) as client:
        tensor = tritonclient.http.InferInput("image", [1, 8, 8, 3], "UINT8")
        tensor.set_data_from_numpy(images(1))
        try:
            return [*map(float, client.infer(task, [tensor]).as_numpy(task)[0])]
        except InferenceServerException as error:
            if "nknown" not in str(error):
                raise
            return None


def right(seed: int) -> list[float]:
    return [*map(float, answer(seed, images(1))[0])]


def write(file: Path, text: str) -> None:
    new = file.with_name("new")
    new.write_text(text)
    new.replace(file)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_task_that_comes_goes_or_changes_on_disk_does_so_in_the_server(path: Path) -> None:
    with watching(path) as server:
        write_task(path, "c", 13)
        until(lambda: ask(server, "c") == right(13))
        write_task(path, "b", 22, version=2)
        until(lambda: ask(server, "b") == right(22))
        shutil.rmtree(path / "a")
        until(lambda: ask(server, "a") is None)
        assert (ask(server, "b"), ask(server, "c")) == (right(22), right(13))


def test_files_are_looked_at_where_the_environment_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "true")
    monkeypatch.setenv("WATCHFILES_POLL_DELAY_MS", "50")
    with watching(path) as server:
        write_task(path, "c", 13)
        until(lambda: ask(server, "c") == right(13))


def test_another_folder_in_its_place_is_served_and_watched(path: Path) -> None:
    """As a deploy of ours leaves it, which exchanges the whole repository for the next in one step."""
    with watching(path) as server:
        for number, seed in enumerate((31, 32)):
            other = write_family(path.with_name(f"next-{number}"), {"a": seed, "d": seed}).path
            path.rename(path.with_name(f"old-{number}"))
            other.rename(path)
            until(lambda seed=seed: ask(server, "d") == ask(server, "a") == right(seed))  # type: ignore[misc]
            assert ask(server, "b") is None
        write_task(path, "c", 13)
        until(lambda: ask(server, "c") == right(13))


def test_a_folder_that_is_deleted_and_made_anew_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks: many file systems give the new one the inode number of the old one, which nobody tells of any more."""
    begun: queue.Queue[Path] = queue.Queue()
    looks = threading.Event()

    def watched(folder: Path, *, stop_event: threading.Event, **options: object) -> Iterator[set[object]]:
        begun.put(folder)
        looks.wait(60)
        while not stop_event.wait(0.01):
            yield set()

    monkeypatch.setattr("watchfiles.watch", watched)
    folder = tmp_path / "repo"
    folder.mkdir()
    files = watch._Files(folder)
    files.start(lambda: None)
    try:
        begun.get(timeout=60)
        folder.rmdir()
        folder.mkdir()
        looks.set()
        assert begun.get(timeout=60) == folder
    finally:
        looks.set()
        files.close()


def test_what_is_wrong_on_disk_changes_nothing_and_is_said_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "serving")
    config = (path / "a" / "config.pbtxt").read_text()
    with watching(path) as server:
        write(path / "a" / "config.pbtxt", config[:-20])
        until(lambda: "The server goes on with what it has." in caplog.text)
        assert (ask(server, "a"), ask(server, "b")) == (right(11), right(12))
        write(path / "a" / "config.pbtxt", config)
        write_task(path, "c", 13)
        until(lambda: ask(server, "c") == right(13))
    assert caplog.text.count("The server goes on with what it has.") == 1


def test_a_task_that_cannot_be_served_is_not_the_others_fault(path: Path) -> None:
    deploys = Deploys()
    staged = write_family(path.with_name("staged"), {"c": 13, "d": 14}).path
    (staged / head("c", 13) / "1" / "model.onnx").write_bytes(b"damaged")
    with watching(path, deploys) as server:
        for name in (head("c", 13), head("d", 14), "c", "d"):
            (staged / name).rename(path / name)
        shutil.rmtree(path / "b")
        until(lambda: ask(server, "d") == right(14) and ask(server, "b") is None)
        assert (ask(server, "a"), ask(server, "c")) == (right(11), None)
        until(lambda: ("all_tasks", False) in deploys.all)
        whole = write_family(path.with_name("whole"), {"c": 13}).path
        (whole / head("c", 13) / "1" / "model.onnx").replace(path / head("c", 13) / "1" / "model.onnx")
        until(lambda: ask(server, "c") == right(13))


def test_what_changes_nothing_that_is_served_loads_nothing(path: Path) -> None:
    deploys = Deploys()
    staged = write_family(path.with_name("staged"), {"c": 13}).path
    with watching(path, deploys) as server:
        (path / "notes.txt").write_text("nothing to serve")
        (path / "a" / "README.md").write_text("nothing either")
        for name in (head("c", 13), "c"):
            (staged / name).rename(path / name)
        until(lambda: ask(server, "c") == right(13))
    assert {task for task, _ in deploys.all} == {"all_tasks"}
    assert len(deploys.all) <= 2  # of the task's two folders the first may be seen before the second


def test_no_thread_is_left(path: Path) -> None:
    with watching(path):
        assert any(thread.name == "espalier-watch" for thread in threading.enumerate())
    until(lambda: not any(thread.name == "espalier-watch" for thread in threading.enumerate()))


def test_a_folder_that_does_not_answer_holds_no_end_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a file system that is gone: the thread waits in a call of the system."""
    asked, answers = threading.Event(), threading.Event()

    def wait(files: watch._Files, polls: bool | None) -> Iterator[None]:
        asked.set()
        answers.wait(120)
        return iter(())

    files = watch._Files(path)
    monkeypatch.setattr(watch._Files, "_changes", wait)
    files.start(lambda: None)
    closing = threading.Thread(target=files.close)
    try:
        assert asked.wait(60)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()
    finally:
        answers.set()
        closing.join(60)
        files._thread.join(60)  # type: ignore[union-attr]


def test_without_the_package_the_start_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "watchfiles" else find(name, *rest))
    with pytest.raises(ExtraNeeded, match=r"load what changes on disk need the package 'watchfiles'.*espalier\[watch\]"):
        watching(path).__enter__()


def test_an_image_that_is_known_of_a_task_that_comes_is_answered_anew(path: Path) -> None:
    """With features that are kept: the trunk is the same, and what the new task makes of it is right."""
    with BackgroundServer(path, http_port=0, grpc_port=0, threads=1, watch=True, feature_cache_bytes=1 << 20) as server:
        assert ask(server, "a") == right(11)
        write_task(path, "c", 13)
        until(lambda: ask(server, "c") == right(13))
        np.testing.assert_array_equal(ask(server, "a"), right(11))
