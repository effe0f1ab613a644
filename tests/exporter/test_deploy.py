"""Versions of tasks on disk: deployed, tried as a canary, rolled back, promoted, and what keeps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.errors import NoCanary, NothingToRollBackTo, NotWritten, RepositoryError, UnknownTask
from contract.preprocessing import Preprocessing
from contract.repository import Repository, Task, TensorSpec, read_repository
from contract.repository.versions import inherited
from exporter.add import AddOptions, add_tasks
from exporter.build.parity import ParityChecker
from exporter.deploy import deploy, promote, rollback
from exporter.errors import BadShare, DifferentAnswer, LastTask, NothingBesideCanary, OtherInputs, ParityError
from exporter.gc import collect_garbage, unused_segments
from exporter.remove import remove_tasks
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from tests.contract.repository.faults import Killed, faults_at
from tests.contract.repository.states import names_in, replace_with, state
from tests.exporter.graphs import SIZE, Net
from tests.exporter.test_export import BACKBONE, FAMILY, export
from tests.exporter.wired import FROZEN, plain
from tests.exporter.wrong_passes import rewritten_by, scaled

# as a whole: the fast part of the suite is to stay under a minute
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

ROWS = np.random.default_rng(5).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
LABELS = ("ant", "bee", "cat")
HOW = Preprocessing(SIZE, SIZE, interpolation="bilinear", crop_fraction=0.875)
# Of the architecture of FAMILY["probe"], with three classes.
FIRST, SECOND, THIRD = FAMILY["probe"], Net(blocks=(1, 2, 3, 41), head=11), Net(blocks=(1, 2, 30, 42), head=12)


def sources(backbone: Net | None = BACKBONE, labels: tuple[str, ...] = (), **tasks: Net) -> Sources:
    loaders = {name: (lambda net=net: TaskModel(net.model(), labels)) for name, net in tasks.items()}
    return Sources(loaders, None if backbone is None else (lambda: TaskModel(backbone.model())))


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return export(tmp_path_factory.mktemp("family") / "repo", {name: FAMILY[name] for name in ("probe", "late")}).repository


@pytest.fixture
def repo(tmp_path: Path, family: Repository) -> Path:
    replace_with(tmp_path / "repo", family)
    return tmp_path / "repo"


def answer(repository: Repository, task: Task) -> np.ndarray:
    """What one version of a task answers."""
    return np.asarray(ParityChecker(replace(repository, tasks={"it": task})).compose("it", [ROWS])[0])


def expected(net: Net) -> np.ndarray:
    return np.asarray(open_session(net.model()).run(None, {"image": ROWS})[0])


def check_versions(repo: Path, **tasks: list[Net]) -> None:
    """Every task has just these versions (current, previous, canary as far as there are), and each answers as its own network."""
    repository = read_repository(repo)
    for name, nets in tasks.items():
        versions = repository.tasks[name].versions
        assert len(versions) == len(nets)
        for version, net in zip(versions, nets, strict=True):
            np.testing.assert_allclose(answer(repository, version), expected(net), atol=1e-5)


def test_a_new_task_is_version_1_and_keeps_nothing(repo: Path) -> None:
    before = state(repo / "probe")
    change = deploy(repo, sources(new=SECOND)).changes["new"]
    assert change.before is None
    assert change.after == read_repository(repo).tasks["new"]
    assert sorted(path.name for path in (repo / "new").iterdir()) == ["1", "config.pbtxt"]
    assert state(repo / "probe") == before
    check_versions(repo, new=[SECOND], probe=[FIRST], late=[FAMILY["late"]])


def test_a_replaced_task_keeps_its_old_version_in_its_folder(repo: Path) -> None:
    deploy(repo, sources(probe=SECOND, labels=LABELS))
    assert sorted(path.name for path in (repo / "probe").iterdir()) == ["2", "config.pbtxt", "labels.txt", "previous"]
    assert names_in(repo / "probe/2") == []
    assert names_in(repo / "probe/previous") == ["config.pbtxt"]
    task = read_repository(repo).tasks["probe"]
    assert (task.version, task.labels) == ("2", LABELS)
    assert task.previous is not None
    assert (task.previous.version, task.previous.labels) == ("1", ())
    check_versions(repo, probe=[SECOND, FIRST], late=[FAMILY["late"]])
    # The labels of the version that is kept are kept with it, and all_tasks has those of the current one.
    rollback(repo, "probe")
    assert names_in(repo / "probe/previous") == ["config.pbtxt", "labels.txt"]
    assert not (repo / "all_tasks/probe.labels.txt").exists()


def described(net: Net, labels: tuple[str, ...] = LABELS, how: Preprocessing | None = HOW) -> Sources:
    """The task `probe`, as a source that knows more of it than an ONNX file says."""
    return Sources({"probe": lambda: TaskModel(net.model(), labels, how)}, lambda: TaskModel(BACKBONE.model()))


def test_a_model_that_says_less_keeps_what_was_known_of_its_task(repo: Path) -> None:
    deploy(repo, described(SECOND))
    added = deploy(repo, sources(probe=THIRD)).added
    assert added is not None
    assert added.inherited == {"probe": ("preprocessing", "labels")}
    added = deploy(repo, sources(probe=FIRST), canary=0.5).added
    assert added is not None
    assert added.inherited == {"probe": ("preprocessing", "labels")}
    versions = read_repository(repo).tasks["probe"].versions
    assert [(version.labels, version.preprocessing) for version in versions] == [(LABELS, HOW)] * 3
    before = state(repo)
    deploy(repo, sources(probe=FIRST), canary=0.5)  # the same again
    assert state(repo) == before


def test_what_a_task_keeps_of_its_version_before() -> None:
    image, floats = TensorSpec("image", "UINT8", (SIZE, SIZE, 3)), TensorSpec("image", "FP32", (3, SIZE, SIZE))
    three, four = (TensorSpec("it", "FP32", (classes,)) for classes in (3, 4))
    old = Task("it", (), (image,), (three,), 8, LABELS, HOW)
    bare = replace(old, labels=(), preprocessing=None)
    other = replace(HOW, interpolation="lanczos")
    for new, expected, words in (
        (bare, old, ("preprocessing", "labels")),
        (replace(bare, preprocessing=other), replace(old, preprocessing=other), ("labels",)),
        (replace(bare, labels=("x", "y", "z")), replace(old, labels=("x", "y", "z")), ("preprocessing",)),
        (replace(bare, outputs=(four,)), replace(old, outputs=(four,), labels=()), ("preprocessing",)),
        (replace(bare, inputs=(floats,)), replace(old, inputs=(floats,), preprocessing=None), ("labels",)),
        (old, old, ()),
    ):
        assert inherited(old, new) == (expected, words)
        assert inherited(bare, new) == (new, ())
    said = replace(bare, inputs=(replace(image, layout="NHWC"),))  # by hand, of a network that says nothing of images
    assert inherited(said, bare)[0].input_layouts() == ("NHWC",)
    assert inherited(said, bare)[1] == ("layout of images",)


def test_only_the_version_before_is_kept(repo: Path) -> None:
    deploy(repo, sources(probe=SECOND))
    deploy(repo, sources(probe=THIRD))
    assert [version.version for version in read_repository(repo).tasks["probe"].versions] == ["3", "2"]
    check_versions(repo, probe=[THIRD, SECOND])


def test_two_rollbacks_are_none(repo: Path) -> None:
    deploy(repo, sources(probe=SECOND))
    before = state(repo)
    rollback(repo, "probe")
    check_versions(repo, probe=[FIRST, SECOND])
    assert names_in(repo / "probe") == ["1", "config.pbtxt", "previous"]
    rollback(repo, "probe")
    assert state(repo) == before


@pytest.mark.slow
def test_add_keeps_what_it_replaces_and_numbers_are_not_given_twice(repo: Path) -> None:
    add_tasks(repo, sources(probe=SECOND), AddOptions(replace=True))
    rollback(repo, "probe")
    deploy(repo, sources(probe=THIRD), canary=0.5)
    rollback(repo, "probe")
    collect_garbage(repo, drop_previous=True)
    assert read_repository(repo).tasks["probe"].last_version == 3
    deploy(repo, sources(probe=THIRD))
    task = read_repository(repo).tasks["probe"]
    assert ([version.version for version in task.versions], task.last_version) == (["4", "1"], 0)


def test_a_canary_stands_beside_the_current_version_until_it_is_promoted(repo: Path) -> None:
    before = (repo / "all_tasks/config.pbtxt").read_bytes(), (repo / "probe/config.pbtxt").read_bytes()
    change = deploy(repo, sources(probe=SECOND, labels=LABELS), canary=0.05).changes["probe"]
    assert change.after.canary is not None
    assert (change.after.canary.share, change.after.canary.task.labels) == (0.05, LABELS)
    assert ((repo / "all_tasks/config.pbtxt").read_bytes(), (repo / "probe/config.pbtxt").read_bytes()) == before
    assert names_in(repo / "probe") == ["1", "canary", "config.pbtxt"]
    check_versions(repo, probe=[FIRST, SECOND])
    promote(repo, "probe")
    assert names_in(repo / "probe") == ["2", "config.pbtxt", "labels.txt", "previous"]
    check_versions(repo, probe=[SECOND, FIRST])


def test_a_rollback_ends_the_canary_and_nothing_else(repo: Path) -> None:
    deploy(repo, sources(probe=SECOND))
    deploy(repo, sources(probe=THIRD), canary=0.2)
    check_versions(repo, probe=[SECOND, FIRST, THIRD])
    rollback(repo, "probe")
    check_versions(repo, probe=[SECOND, FIRST])


def test_a_deployment_ends_the_canary(repo: Path) -> None:
    deploy(repo, sources(probe=SECOND), canary=0.2)
    deploy(repo, sources(probe=THIRD))
    assert [version.version for version in read_repository(repo).tasks["probe"].versions] == ["3", "1"]
    check_versions(repo, probe=[THIRD, FIRST])


@pytest.mark.slow
def test_what_is_deployed_already_is_not_deployed_again(repo: Path) -> None:
    deploy(repo, sources(probe=SECOND))
    before = state(repo)
    deploy(repo, sources(probe=SECOND))  # as after a server that could not be reached: the way back is not lost
    assert state(repo) == before
    deploy(repo, sources(probe=THIRD), canary=0.05)
    again = deploy(repo, sources(probe=THIRD), canary=0.5).changes["probe"]
    assert again.before is not None
    assert again.after.canary == replace(again.before.canary, share=0.5)


def test_a_version_shares_with_the_one_it_replaces_even_where_no_other_task_does(tmp_path: Path) -> None:
    # A backbone is not given, and the old version is nobody's but its own.
    export(tmp_path / "repo", {"only": FIRST, "other": Net(blocks=(1, 20, 3, 4), head=9)}, backbone=None)
    remove_tasks(tmp_path / "repo", ["other"], gc=True)
    added = deploy(tmp_path / "repo", sources(None, only=Net(blocks=(1, 2, 3, 4), head=8)), canary=0.1).added
    assert added is not None
    task = added.repository.tasks["only"]
    assert task.canary is not None
    assert task.steps[0] == task.canary.task.steps[0]
    check_versions(tmp_path / "repo", only=[FIRST, Net(blocks=(1, 2, 3, 4), head=8)])


@pytest.mark.slow
def test_what_is_kept_is_used_until_it_is_let_go_of(repo: Path) -> None:
    deploy(repo, sources(probe=SECOND))
    deploy(repo, sources(probe=THIRD), canary=0.1)
    assert collect_garbage(repo) == {}
    check_versions(repo, probe=[SECOND, FIRST, THIRD])
    # A trial run says what would go, and changes nothing.
    before = state(repo)
    would_go = collect_garbage(repo, dry_run=True, drop_previous=True)
    assert state(repo) == before
    assert would_go
    assert collect_garbage(repo, drop_previous=True) == would_go
    check_versions(repo, probe=[SECOND, THIRD], late=[FAMILY["late"]])
    assert not any((repo / name).exists() for name in would_go)
    assert unused_segments(read_repository(repo)) == {}


def test_a_version_that_needs_no_segment_of_its_own_is_let_go_of_too(repo: Path) -> None:
    deploy(repo, sources(probe=FIRST, labels=LABELS))
    assert collect_garbage(repo, drop_previous=True) == {}
    assert not (repo / "probe/previous").exists()
    assert read_repository(repo).tasks["probe"].previous is None


@pytest.mark.slow
def test_other_changes_keep_the_versions_to_the_byte(repo: Path) -> None:
    deploy(repo, sources(probe=SECOND))
    deploy(repo, sources(probe=THIRD), canary=0.1)
    before = state(repo / "probe")
    deploy(repo, sources(more=FAMILY["middle"]))
    remove_tasks(repo, ["late"], gc=True)
    assert state(repo / "probe") == before
    check_versions(repo, probe=[SECOND, FIRST, THIRD], more=[FAMILY["middle"]])


@pytest.mark.slow
def test_recut_divides_the_segments_of_all_versions(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export(repo, {"probe": FIRST}, backbone=None)  # one segment
    deploy(repo, sources(None, probe=SECOND))
    deploy(repo, sources(None, probe=THIRD), canary=0.1)
    report = add_tasks(repo, sources(late=FAMILY["late"]), AddOptions(recut=True))
    assert report.parity_errors.keys() == {"late", "probe", "probe@1", "probe@3"}
    check_versions(repo, probe=[SECOND, FIRST, THIRD], late=[FAMILY["late"]])
    task = read_repository(repo).tasks["probe"]
    assert len({version.steps[0].segment for version in task.versions}) == 1
    assert all("@" not in segment for segment in read_repository(repo).segments)


def test_undeploying_takes_all_versions(repo: Path) -> None:
    deploy(repo, sources(probe=SECOND))
    removal = remove_tasks(repo, ["probe"], gc=True)
    assert removal.collected
    assert not (repo / "probe").exists()
    assert unused_segments(read_repository(repo)) == {}
    with pytest.raises(LastTask):
        remove_tasks(repo, ["late"])


def deploy_rewritten(repo: Path) -> None:
    with rewritten_by(scaled):
        add_tasks(repo, sources(probe=SECOND), AddOptions(canary=0.1))


REFUSED: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "no version": (lambda repo: rollback(repo, "probe"), NothingToRollBackTo, "'probe' has no earlier version and no canary"),
    "no canary": (lambda repo: promote(repo, "probe"), NoCanary, "'probe' has no canary to promote; deploy one first"),
    "no task": (lambda repo: rollback(repo, "pets"), UnknownTask, "'pets'; known are: late, probe"),
    "nothing beside": (lambda repo: deploy(repo, sources(pets=SECOND), canary=0.1), NothingBesideCanary, "would stand alone"),
    "all of it": (lambda repo: deploy(repo, sources(probe=SECOND), canary=1.0), BadShare, "less than 100 %.*not 100 %"),
    "no number": (lambda repo: deploy(repo, sources(probe=SECOND), canary=float("nan")), BadShare, "not nan %"),
    "other classes": (lambda repo: deploy(repo, sources(probe=FAMILY["late"]), canary=0.1), DifferentAnswer, r"\[5\].*version.*\[3\]"),
    "other input": (
        lambda repo: deploy(repo, Sources({"probe": lambda: TaskModel(plain(FROZEN, 9))}), canary=0.1),
        OtherInputs,
        "canary of task 'probe' takes FP32 rows",
    ),
    "parity": (lambda repo: deploy_rewritten(repo), ParityError, "differ"),
    "no repository": (lambda repo: deploy(repo / "probe", sources(probe=SECOND)), RepositoryError, "holds no task"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_changes_nothing(repo: Path, what: str) -> None:
    action, error, words = REFUSED[what]
    before = state(repo)
    with pytest.raises(error, match=words):
        action(repo)
    assert state(repo) == before
    assert names_in(repo.parent) == ["repo"]


@pytest.mark.slow
def test_killed_at_any_step_a_rollback_is_made_or_not(repo: Path) -> None:
    deploy(repo, sources(probe=SECOND))
    before = state(repo)
    rollback(repo, "probe")
    after = state(repo)
    found = set()
    for step in range(1000):
        rollback(repo, "probe") if state(repo) == after else None
        with faults_at(step, Killed(), lasting=True) as calls:
            try:
                rollback(repo, "probe")
            except Killed:
                pass
            else:
                break
        assert calls
        found.add(state(repo) == after)
        assert state(repo) in (before, after)
    assert found == {True, False}


@dataclass
class Model:
    """What a task should be: its current version, the previous one, the canary, each a network or None."""

    current: Net
    previous: Net | None = None
    canary: Net | None = None

    def deployed(self, net: Net) -> Model:
        return self if net == self.current else Model(net, self.current)

    def tried(self, net: Net) -> Model:
        return Model(self.current, self.previous, net)

    def rolled_back(self) -> Model | None:
        if self.canary:
            return Model(self.current, self.previous)
        return Model(self.previous, self.current) if self.previous else None

    def promoted(self) -> Model | None:
        return Model(self.canary, self.current) if self.canary else None

    @property
    def nets(self) -> list[Net]:
        return [net for net in (self.current, self.previous, self.canary) if net]


NETS = [
    FIRST,
    SECOND,
    THIRD,
    Net(blocks=(1, 20, 3, 4), head=13),
    Net(blocks=(10, 2, 3, 4), head=14),
    Net(blocks=(1, 2, 3, 4), head=15),
]
actions = st.sampled_from(["deploy", "canary", "rollback", "promote", "gc", "drop", "recut"])


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(actions, st.sampled_from(["probe", "late"]), st.sampled_from(NETS)), min_size=2, max_size=7))
def test_whatever_happens_every_version_answers_as_its_own_network(
    tmp_path_factory: pytest.TempPathFactory, family: Repository, steps: list[tuple[str, str, Net]]
) -> None:
    repo = tmp_path_factory.mktemp("versions") / "repo"
    nets = {"probe": FIRST, "late": NETS[-1]}
    export(repo, nets)
    models = {name: Model(net) for name, net in nets.items()}
    numbers, highest = {name: {1} for name in models}, dict.fromkeys(models, 1)
    for number, (action, name, net) in enumerate(steps):
        next_one: Model | None = models[name]
        if action == "deploy":
            next_one = models[name].deployed(net)
            deploy(repo, sources(**{name: net}))
        elif action == "canary":
            next_one = models[name].tried(net)
            deploy(repo, sources(**{name: net}), canary=0.1)
        elif action in ("rollback", "promote"):
            next_one = models[name].rolled_back() if action == "rollback" else models[name].promoted()
            change = rollback if action == "rollback" else promote
            if next_one is None:
                with pytest.raises(NotWritten):
                    change(repo, name)
                continue
            change(repo, name)
        elif action == "recut":
            fresh = Net(blocks=(1, 2, 3, 50 + number), head=50 + number)
            add_tasks(repo, sources(**{f"more{number}": fresh}), AddOptions(recut=True))
            models[f"more{number}"] = Model(fresh)
        else:
            collect_garbage(repo, drop_previous=action == "drop")
            if action == "drop":
                models = {key: Model(model.current, None, model.canary) for key, model in models.items()}
            next_one = models[name]
            assert unused_segments(read_repository(repo)) == {}
        models[name] = next_one or models[name]
        check_versions(repo, **{key: model.nets for key, model in models.items()})
        for key, before in numbers.items():
            versions = {int(version.version) for version in read_repository(repo).tasks[key].versions}
            assert versions - before <= {highest[key] + 1}
            numbers[key], highest[key] = versions, max(highest[key], *versions)
