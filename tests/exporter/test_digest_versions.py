"""A repository whose digests are of an older version: what is there stays as it is, what comes shares with it, and all of it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.errors import NewerDigests
from contract.repository import Repository, model, read_repository
from exporter.build.repository_chains import contents_of
from exporter.deploy import promote, rollback
from exporter.errors import DamagedTask
from exporter.gc import collect_garbage
from exporter.graph import digests
from exporter.remove import remove_tasks
from tests.exporter.graphs import Net
from tests.exporter.test_add import add, check_answers, contents
from tests.exporter.test_deploy import SECOND, THIRD, check_versions, deploy, sources
from tests.exporter.test_export import FAMILY, export

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

TODAY, LATER = model.DIGEST_VERSION, model.DIGEST_VERSION + 1
THERE = {name: FAMILY[name] for name in ("probe", "late", "early")}


@contextmanager
def later() -> Iterator[None]:
    """Compute all digests otherwise, as a later version may."""
    hashed = digests._hash
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "_hash", lambda *parts: hashed(b"later", *parts))
        patch.setattr(model, "DIGEST_VERSION", LATER)
        yield


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    export(tmp_path / "repo", THERE)
    return tmp_path / "repo"


def stays(before: dict[str, bytes], after: dict[str, bytes]) -> bool:
    """Whether all that was there is there, but for the ensemble of all tasks."""
    return all(after.get(name) == content for name, content in before.items() if not name.startswith("all_tasks/"))


def versions_of(repository: Repository) -> set[int]:
    return {segment.digest_version for segment in repository.segments.values()}


def names_of(repository: Repository, task: str) -> list[str]:
    return [name for step in repository.tasks[task].steps for name in step.outputs]


def test_a_repository_says_of_which_version_its_digests_are(tmp_path: Path) -> None:
    with later():
        export(tmp_path / "repo", THERE)
    repository = read_repository(tmp_path / "repo")
    assert (repository.digest_version, versions_of(repository)) == (LATER, {LATER})


def test_a_task_that_is_added_shares_with_an_older_repository_which_stays_to_the_byte(repo: Path) -> None:
    before, old = contents(repo), read_repository(repo)
    with later():
        report = add(repo, {"middle": FAMILY["middle"]})
    new = read_repository(repo)
    assert stays(before, contents(repo))
    check_answers(new, FAMILY)
    used = [step.segment for step in new.tasks["middle"].steps]
    assert used[0] in old.segments
    assert set(report.new) == used_now(new) - used_now(old)
    assert (new.digest_version, {new.segments[name].digest_version for name in report.new}) == (LATER, {LATER})
    # The trunk is one step for all: by the name that its tensor had.
    assert new.tasks["middle"].steps[0] == old.tasks["probe"].steps[0]
    assert report.missed["middle"].blocks == 0


def used_now(repository: Repository) -> set[str]:
    return {step.segment for task in repository.tasks.values() for step in task.steps}


def test_what_is_added_to_an_older_repository_is_what_is_added_to_one_of_today(repo: Path, tmp_path: Path) -> None:
    with later():
        export(tmp_path / "new", THERE)
        add(tmp_path / "new", {"middle": FAMILY["middle"]})
        add(repo, {"middle": FAMILY["middle"]})
    found, expected = read_repository(repo), read_repository(tmp_path / "new")
    steps = [[found.segments[step.segment].blocks for step in found.tasks[name].steps] for name in FAMILY]
    assert steps == [[expected.segments[step.segment].blocks for step in expected.tasks[name].steps] for name in FAMILY]
    assert len(found.segments) == len(expected.segments)


def test_two_tasks_are_added_one_after_the_other(repo: Path) -> None:
    other = Net(blocks=(1, 20, 3, 4), head=9)
    with later():
        add(repo, {"middle": FAMILY["middle"]})
        before = contents(repo)
        report = add(repo, {"other": other})
    assert stays(before, contents(repo))
    assert len(report.new) == 1  # the head: what else it takes is of both versions
    assert names_of(report.repository, "other")[:-1] == names_of(report.repository, "middle")[:-1]
    check_answers(read_repository(repo), {**FAMILY, "other": other})


def test_an_older_repository_is_cut_anew_and_its_segments_keep_their_names(repo: Path) -> None:
    before = read_repository(repo)
    with later():
        add(repo, {"middle": FAMILY["middle"]}, recut=True)
        report = add(repo, {}, None, recut=True)
    check_answers(read_repository(repo), FAMILY)
    assert not report.new
    stayed = used_now(report.repository) & used_now(before)
    assert any(name.startswith("trunk-00-00-") for name in stayed)


def test_versions_of_tasks_come_and_go_in_an_older_repository(repo: Path) -> None:
    late, early = FAMILY["late"], FAMILY["early"]
    with later():
        again = deploy(repo, sources(probe=FAMILY["probe"]))
        assert again.changes["probe"].before == again.changes["probe"].after  # it is current already
        deploy(repo, sources(probe=SECOND))
        deploy(repo, sources(probe=THIRD), canary=0.5)
        check_versions(repo, probe=[SECOND, FAMILY["probe"], THIRD], late=[late], early=[early])
        promote(repo, "probe")
        rollback(repo, "probe")
        check_versions(repo, probe=[SECOND, THIRD], late=[late], early=[early])
        remove_tasks(repo, ["late"], gc=True)
        collect_garbage(repo, drop_previous=True)
        check_versions(repo, probe=[SECOND], early=[early])
        add(repo, {"late": late})
    check_answers(read_repository(repo), {"probe": SECOND, "early": early, "late": late})


@pytest.mark.parametrize("change", ["remove", "rollback"])
def test_what_compares_no_networks_reads_no_segment(repo: Path, change: str) -> None:
    deploy(repo, sources(probe=SECOND))
    before = contents(repo)
    with later():
        remove_tasks(repo, ["late"]) if change == "remove" else rollback(repo, "probe")
    repository = read_repository(repo)
    assert repository.digest_version == LATER
    assert versions_of(repository) == {TODAY}
    gone = ("all_tasks/", "late/") if change == "remove" else ("all_tasks/", "probe/")
    assert stays({name: content for name, content in before.items() if not name.startswith(gone)}, contents(repo))


def test_a_segment_that_nobody_uses_is_nothing_to_compare_with(repo: Path) -> None:
    remove_tasks(repo, ["early"])
    with later():
        add(repo, {"early": FAMILY["early"]})
        kept = contents_of(read_repository(repo), {})
    check_answers(read_repository(repo), THERE)
    assert [content.partition(":")[0] for content in kept.values()].count(str(TODAY)) > 0


def test_a_newer_repository_is_read_and_not_changed(tmp_path: Path) -> None:
    with later():
        export(tmp_path / "repo", THERE)
    before = contents(tmp_path / "repo")
    for change in (
        lambda: add(tmp_path / "repo", {"middle": FAMILY["middle"]}),
        lambda: add(tmp_path / "repo", {}, None, recut=True),
        lambda: deploy(tmp_path / "repo", sources(probe=SECOND)),
        lambda: remove_tasks(tmp_path / "repo", ["late"]),
        lambda: rollback(tmp_path / "repo", "probe"),
    ):
        with pytest.raises(NewerDigests, match=rf"version {LATER}, the newest known here is {TODAY}.*upgrade espalier"):
            change()
    assert contents(tmp_path / "repo") == before
    check_answers(read_repository(tmp_path / "repo"), THERE)
    export(tmp_path / "repo", THERE, force=True)  # nothing is compared with what goes
    assert read_repository(tmp_path / "repo").newest_digest_version == TODAY


def test_a_damaged_segment_of_an_older_repository_is_found_by_what_its_tasks_answer(repo: Path) -> None:
    repository = read_repository(repo)
    name = next(name for name in repository.segments if name.startswith("late-"))
    segment = ir.load(repository.model_file(name))
    weight = next(value for value in segment.graph.initializers.values() if len(value.const_value.shape) == 4)
    weight.const_value = ir.tensor(weight.const_value.numpy() + 1)
    ir.save(segment, repository.model_file(name))
    before = contents(repo)
    with (
        later(),
        pytest.raises(DamagedTask, match="Task 'late' does not answer what its config"),
    ):
        add(repo, {"middle": FAMILY["middle"]})
    assert contents(repo) == before


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.integers(0, 3)), min_size=3, max_size=3), st.booleans(), st.booleans())
def test_whatever_was_tuned_and_comes_all_answer_as_their_networks(
    tmp_path_factory: pytest.TempPathFactory, family: list[set[int]], recut: bool, twice: bool
) -> None:
    repo = tmp_path_factory.mktemp("older") / "repo"
    one, two, three = (
        Net([seed * 10 if index in tuned else seed for index, seed in enumerate((1, 2, 3, 4))], head)
        for head, tuned in enumerate(family, 20)
    )
    export(repo, {"one": one, "two": two})
    with later():
        add(repo, {"three": three}, recut=recut)
        if twice:
            add(repo, {}, None, recut=True)
    check_answers(read_repository(repo), {"one": one, "two": two, "three": three})
