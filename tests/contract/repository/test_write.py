"""A change of a repository at which something fails, at every step: the old or the new repository, never a mixture."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from contract.errors import NotWritten
from contract.repository import Repository
from contract.repository.transaction.folder import only_writer, recover, silent
from exporter.remove import remove_tasks
from tests.contract.repository.faults import Killed, faults_at
from tests.contract.repository.states import State, names_in, replace_with, state

pytestmark = pytest.mark.slow  # a sweep over every step at which a writer can die

Operation = Callable[[Path, Repository], object]
OPERATIONS: dict[str, Operation] = {
    "create": replace_with,
    "replace": replace_with,
    "remove": lambda repo, new: remove_tasks(repo, ["alpha"], gc=True),
}
FULL = OSError(errno.ENOSPC, "No space left on device")


class Bench:
    """Sets the stage for one operation, again and again."""

    def __init__(self, folder: Path, operation: str, old: Repository, new: Repository) -> None:
        self.repo = folder / "below" / "repo"
        self._template = None if operation == "create" else folder / "template"
        if self._template is not None:
            shutil.copytree(old.path, self._template)
        if operation == "remove":
            (self._template or folder).joinpath("notes.txt").write_text("by somebody else")
        self._operation = partial(OPERATIONS[operation], self.repo, new)
        self.before = self.set_up()
        self.run()
        self.after = state(self.repo)
        assert self.after != self.before
        self.set_up()

    def set_up(self) -> State:
        shutil.rmtree(self.repo, ignore_errors=True)
        if self._template is not None:
            shutil.copytree(self._template, self.repo)
        return state(self.repo)

    def run(self) -> None:
        self._operation()

    def check_next_writer(self) -> None:
        """Whatever is left, the next writer leaves the repository and nothing else, and as it was."""
        stands = state(self.repo)
        with only_writer(self.repo, silent):
            pass
        assert state(self.repo) == stands
        assert names_in(self.repo.parent) == (["repo"] if self.repo.exists() else [])
        if stands != self.before:
            self.set_up()


@pytest.fixture
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, old: Repository, new: Repository, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # thousands of them take minutes, and only a power cut shows them
    return Bench(tmp_path, request.param, old, new)


@pytest.mark.parametrize(
    ("bench", "can_exchange"),
    [("create", True), ("replace", False), ("remove", True)],
    indirect=["bench"],
)
def test_killed_at_any_step_the_old_or_the_new_repository_stands(bench: Bench, can_exchange: bool) -> None:
    step, seen = 0, set()
    while True:
        with faults_at(step, Killed(), lasting=True, can_exchange=can_exchange) as calls:
            try:
                bench.run()
                break
            except Killed:
                pass
        recover(bench.repo)
        stands = state(bench.repo)
        assert stands in (bench.before, bench.after), f"killed instead of call {step}, {calls[step]}"
        seen.add(stands == bench.after)
        bench.check_next_writer()
        step += 1
    assert step > 20
    assert seen == {False, True}


@pytest.mark.parametrize(
    ("bench", "can_exchange", "error"),
    [
        ("create", True, FULL),
        ("remove", False, FULL),
        ("remove", True, KeyboardInterrupt()),
    ],
    indirect=["bench"],
)
def test_an_error_at_any_step_changes_nothing_or_everything(bench: Bench, can_exchange: bool, error: BaseException) -> None:
    step = 0
    while True:
        with faults_at(step, error, lasting=False, can_exchange=can_exchange) as calls:
            said = _said(bench)
        stands, where = state(bench.repo), f"{error!r} instead of call {step}: {said}"
        assert stands in (bench.before, bench.after), where
        if said != "interrupted":
            assert (stands == bench.before) == ("nothing was changed" in said), where
        bench.check_next_writer()
        if len(calls) <= step:
            break
        step += 1
    assert step > 20


def _said(bench: Bench) -> str:
    try:
        bench.run()
    except NotWritten as error:
        return str(error)
    except KeyboardInterrupt:
        return "interrupted"
    return "done"
