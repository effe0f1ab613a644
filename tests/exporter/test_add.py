"""Adding tasks to a repository: what is there stays, byte for byte, and answers as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.repository import Repository, read_repository
from exporter.add import AddOptions, AddReport, add_tasks
from exporter.build.parity import ParityChecker
from exporter.errors import AnotherArchitecture, ParityError, TaskExists
from exporter.export import ExportOptions, export_repository
from exporter.gc import collect_garbage
from exporter.remove import remove_tasks
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.graphs import SIZE, Net
from tests.exporter.test_export import BACKBONE, FAMILY, export
from tests.exporter.wired import FROZEN, plain, siamese
from tests.exporter.wrong_passes import rewritten_by, scaled

# as a whole: the fast part of the suite is to stay under a minute
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

ROWS = np.random.default_rng(5).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)


def add(repo: Path, tasks: dict[str, Net], backbone: Net | None = BACKBONE, **options: bool) -> AddReport:
    loaders = {name: (lambda net=net: TaskModel(net.model())) for name, net in tasks.items()}
    source = None if backbone is None else (lambda: TaskModel(backbone.model()))
    return add_tasks(repo, Sources(loaders, source), AddOptions(**options))


def contents(repo: Path) -> dict[str, bytes]:
    return {str(file.relative_to(repo)): file.read_bytes() for file in repo.rglob("*") if file.is_file()}


def check_answers(repository: Repository, tasks: dict[str, Net]) -> None:
    checker = ParityChecker(repository)
    for name, net in tasks.items():
        expected = open_session(net.model()).run(None, {"image": ROWS})[0]
        np.testing.assert_allclose(checker.compose(name, [ROWS])[0], expected, atol=1e-5)


def test_what_is_there_stays_to_the_byte_and_a_new_task_uses_it(tmp_path: Path) -> None:
    export(tmp_path / "repo", {name: FAMILY[name] for name in ("probe", "late", "early")})
    before = contents(tmp_path / "repo")
    report = add(tmp_path / "repo", {"middle": FAMILY["middle"]})
    after = contents(tmp_path / "repo")
    assert {name: after[name] for name in before if not name.startswith("all_tasks/")} == {
        name: content for name, content in before.items() if not name.startswith("all_tasks/")
    }
    check_answers(read_repository(tmp_path / "repo"), FAMILY)
    used = {step.segment for step in report.repository.tasks["middle"].steps}
    assert any(name.startswith("trunk-00-00") for name in used & set(report.kept))
    assert set(report.new) <= used
    assert report.parity_errors["middle"] < 1e-5


def test_a_task_that_forks_inside_a_segment_computes_that_part_itself_and_says_so(tmp_path: Path) -> None:
    export(tmp_path / "repo", {"probe": FAMILY["probe"], "late": FAMILY["late"]})
    kept = add(tmp_path / "repo", {"middle": FAMILY["middle"]})
    missed = kept.missed["middle"]
    assert missed.blocks == 2  # the stem and the first block, which the trunk of four blocks also computes
    chain = export(tmp_path / "other", FAMILY).chains["middle"]
    assert missed.macs == sum(block.macs for block in chain.blocks[:2])


def test_recut_divides_the_trunk_and_changes_no_answer(tmp_path: Path) -> None:
    first = {"probe": FAMILY["probe"], "late": FAMILY["late"]}
    export(tmp_path / "repo", first)
    report = add(tmp_path / "repo", {"middle": FAMILY["middle"], "early": FAMILY["early"]}, recut=True)
    assert report.missed == {}
    assert report.parity_errors.keys() == set(FAMILY)
    assert max(report.parity_errors.values()) < 1e-5
    check_answers(read_repository(tmp_path / "repo"), FAMILY)
    # After gc, what is stored is what an export of all at once would store.
    collect_garbage(tmp_path / "repo")
    at_once = export(tmp_path / "at-once", FAMILY).repository
    stored = [sum(s.parameters for s in repo.segments.values()) for repo in (read_repository(tmp_path / "repo"), at_once)]
    assert stored[0] == stored[1]


def test_a_task_is_replaced_only_when_asked_to(tmp_path: Path) -> None:
    export(tmp_path / "repo", FAMILY)
    other = Net(blocks=(1, 2, 3, 44), head=7, classes=5)
    before = contents(tmp_path / "repo")
    with pytest.raises(TaskExists, match=r"'late' is in the repository already.*have it replaced"):
        add(tmp_path / "repo", {"late": other})
    assert contents(tmp_path / "repo") == before
    add(tmp_path / "repo", {"late": other}, replace=True)
    check_answers(read_repository(tmp_path / "repo"), {**FAMILY, "late": other})


def test_what_does_not_belong_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    export(tmp_path / "repo", FAMILY)
    before = contents(tmp_path / "repo")
    with pytest.raises(AnotherArchitecture):
        add(tmp_path / "repo", {"stranger": Net(blocks=(7, 8), head=9, stem=9)})
    with pytest.raises(AnotherArchitecture):
        add_tasks(
            tmp_path / "repo",
            Sources({"plain": lambda: TaskModel(plain(FROZEN, 9))}, lambda: TaskModel(BACKBONE.model())),
            AddOptions(),
        )
    loader = {"new": lambda: TaskModel(Net(blocks=(1, 2, 3, 41)).model())}
    with rewritten_by(scaled), pytest.raises(ParityError):
        add_tasks(tmp_path / "repo", Sources(loader), AddOptions())
    assert contents(tmp_path / "repo") == before
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]


def test_a_siamese_head_is_added_to_what_is_there(tmp_path: Path) -> None:
    heads = {"probe": 20, "other": 19}
    loaders = {name: (lambda head=head: TaskModel(plain(FROZEN, head))) for name, head in heads.items()}
    loaders["late"] = lambda: TaskModel(plain({**FROZEN, "b4": 40}, 21))
    export_repository(Sources(loaders), ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    twin = Sources({"twin": lambda: TaskModel(siamese({"b4": 44}, head=22, fork="b3"))})
    report = add_tasks(tmp_path / "repo", twin, AddOptions())
    assert report.missed["twin"].blocks == 0
    assert len(report.new) == 1  # the tuned block and the head, which takes the frozen features, too
    assert report.parity_errors["twin"] < 1e-5


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sets(st.integers(0, 3)), st.booleans(), st.booleans()), min_size=1, max_size=4),
    st.sampled_from(["exact", "cheap", "stages"]),
)
def test_whatever_comes_and_goes_every_task_answers_as_its_own_network(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[set[int], bool, bool]], rule: str
) -> None:
    repo = tmp_path_factory.mktemp("coming") / "repo"
    tasks = {"late": FAMILY["late"]}
    export(repo, tasks, cuts=CutOptions(rule))  # type: ignore[arg-type]
    for number, (tuned, recut, removed) in enumerate(steps):
        net = Net(blocks=[seed * 10 if index in tuned else seed for index, seed in enumerate((1, 2, 3, 4))], head=number + 20)
        add(repo, {f"task{number}": net}, recut=recut)
        tasks[f"task{number}"] = net
        if removed:
            remove_tasks(repo, [next(iter(tasks))], gc=True)
            del tasks[next(iter(tasks))]
        repository = read_repository(repo)
        assert repository.tasks.keys() == tasks.keys()
        check_answers(repository, tasks)
