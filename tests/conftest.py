"""Settings of all tests."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch and numpy are imported: tiny networks are no work for several threads, which wait for one another the longer, the
# busier the machine is. Processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
# Hundreds of processes that tests start would compile all modules anew: half a second each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from contract.repository import Repository

sys.dont_write_bytecode = False

# Machines are shared: an example that takes long is no failure. What must be fast is measured in benchmarks.
settings.register_profile("espalier", deadline=None)
settings.load_profile("espalier")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import all modules without looking for garbage, and never look through them again: that took a third of the imports' time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Let the interpreter clean up as ever, else C++ libraries report what is still there."""
    gc.unfreeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[bool | None]:
    """A command that a test runs in this process sets the process up, which the next test is not to see.

    Its lines would go to a stream that is closed, or nowhere; what it cannot catch to typer's hook; and threads would take turns faster.
    """
    loggers = [logging.getLogger(name) for name in (None, "uvicorn", "uvicorn.error", "asyncio")]
    handlers, levels = loggers[0].handlers[:], [logger.level for logger in loggers]
    hook, interval_s = sys.excepthook, sys.getswitchinterval()
    try:
        return (yield)
    finally:
        loggers[0].handlers[:] = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        sys.excepthook = hook
        sys.setswitchinterval(interval_s)


@pytest.fixture(scope="session")
def traces_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "traces"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def kept_traces(traces_folder: Path) -> Iterator[None]:
    """Networks that another module with this fixture has traced are not traced again: for tests of what is done with a trace."""
    from exporter.torch import export as torch_export
    from tests.traces import keeping

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_export, "trace", keeping(torch_export.trace, traces_folder))
        yield


@pytest.fixture
def forked_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX files are tried out in a forked process: for tests of what comes after. Those in test_fuzz.py start the real one."""
    from exporter.sources import sandbox
    from tests import forked

    monkeypatch.setattr(sandbox, "_run", forked.run)


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free sizes are tried up to 256, of images and texts: where it is no matter from where on nobody knows of a limit."""
    from exporter.sources import free_sizes

    monkeypatch.setattr(free_sizes, "_LARGEST", 256)
    monkeypatch.setattr(free_sizes, "_LARGEST_SIDE", 256)


@pytest.fixture(scope="module")
def unsynced() -> Iterator[None]:
    """Nothing waits for the disk, which only a power cut would show: for tests that write many repositories."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The family of serving/nets.py on disk. Not to be changed: copy it first."""
    from tests.serving.nets import write_repository

    return write_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def broken_repository(tmp_path: Path) -> Path:
    """A copy of the family, to be damaged."""
    from tests.serving.nets import write_repository

    write_repository(tmp_path / "repo")
    return tmp_path / "repo"


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The smallest repository with a trunk and two branches. Only to be read."""
    return _exported(tmp_path_factory.mktemp("states") / "old", "alpha", "beta")


@pytest.fixture(scope="session")
def new(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Another one: some segments are the same, some are not."""
    return _exported(tmp_path_factory.mktemp("states") / "new", "beta", "gamma")


def _exported(path: Path, *tasks: str) -> Repository:
    from contract.repository import read_repository
    from tests.exporter.graphs import Net
    from tests.exporter.test_export import export

    export(path, {task: Net(blocks=(1,), head=ord(task[0])) for task in tasks}, backbone=None)
    return read_repository(path)
