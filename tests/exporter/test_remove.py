"""`espalier remove`: tasks go, everything of the others stays down to the byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import UnknownTask
from contract.repository import ALL_TASKS, Repository, read_repository
from exporter.errors import LastTask
from exporter.remove import remove_tasks
from tests.contract.repository.states import names_in, replace_with, state
from tests.espalier.test_cli import espalier
from tests.exporter.test_export import FAMILY, export

# as a whole: the fast part of the suite is to stay under a minute
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return export(tmp_path_factory.mktemp("family") / "repo", FAMILY).repository


@pytest.fixture
def repo(tmp_path: Path, old: Repository) -> Path:
    replace_with(tmp_path / "repo", old)
    return tmp_path / "repo"


@settings(max_examples=8)
@given(st.sets(st.sampled_from(sorted(FAMILY)), min_size=1, max_size=len(FAMILY) - 1), st.booleans())
def test_what_stays_is_as_an_export_without_the_others_names_it(family: Repository, names: set[str], gc: bool) -> None:
    repo = family.path.parent / "changed"
    shutil.rmtree(repo, ignore_errors=True)
    shutil.copytree(family.path, repo)
    before = state(repo)
    inodes = _inodes(repo)
    removal = remove_tasks(repo, names, gc=gc)
    after = state(repo)
    gone = {*names, *(removal.unused if gc else ())}
    assert {path: digest for path, digest in after.items() if not path.startswith(ALL_TASKS)} == {
        path: digest for path, digest in before.items() if Path(path).parts[0] not in (*gone, ALL_TASKS)
    }
    kept = _inodes(repo)
    assert all(kept[path] == inodes[path] for path in kept if not path.startswith(ALL_TASKS))
    repository = read_repository(repo)
    assert repository == removal.repository
    assert repository.tasks == {name: task for name, task in family.tasks.items() if name not in names}
    used = {step.segment for task in repository.tasks.values() for step in task.steps}
    assert removal.unused.keys() == family.segments.keys() - used
    assert set(repository.segments) == (used if gc else set(family.segments))


def test_all_tasks_is_that_of_the_tasks_that_are_left(repo: Path) -> None:
    remove_tasks(repo, ["alpha"], gc=True)
    whole = state(repo)
    config = (repo / ALL_TASKS / "config.pbtxt").read_text()
    assert '"beta"' in config
    assert "alpha" not in config
    # What is left is a repository like any other: written anew from what is read, it is the same bytes.
    replace_with(repo.parent / "again", read_repository(repo))
    assert state(repo.parent / "again") == whole


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        (["gamma"], UnknownTask, "Unknown task 'gamma'; known are: alpha, beta"),
        (["alpha", "gamma"], UnknownTask, "gamma"),
        (["alpha", "beta", "alpha"], LastTask, "delete the folder"),
    ],
)
def test_what_cannot_be_removed_changes_nothing(repo: Path, names: list[str], error: type[Exception], words: str) -> None:
    before = state(repo)
    with pytest.raises(error, match=words):
        remove_tasks(repo, names)
    assert state(repo) == before
    assert names_in(repo.parent) == ["repo"]


def test_the_command_says_what_could_be_freed(repo: Path) -> None:
    run = espalier("remove", repo, "alpha")
    assert run.returncode == 0, run.stderr
    assert "Removed alpha; the repository holds beta" in run.stdout
    assert "1 segment is not used any more" in run.stdout
    assert f"espalier gc {repo}" in run.stdout


def test_the_command_frees_it_when_told(repo: Path) -> None:
    assert "Removed 1 segment that no task uses, and freed" in espalier("remove", repo, "alpha", "--gc").stdout
    run = espalier("remove", repo, "beta")
    assert run.returncode == 2
    assert "delete the folder" in run.stderr


def _inodes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}
