"""The benchmark of very many tasks, at a size that says nothing of speed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.models.task_copies import Copies, copy_tasks
from benchmarks.models.tiny import write_tiny_family
from benchmarks.studies.many_tasks.measure import main
from benchmarks.studies.many_tasks.open_segments import OpenSegments
from benchmarks.studies.many_tasks.results import Timed, by_state
from contract.repository import Repository, read_repository
from exporter.export import ExportOptions, export_repository
from serving.engines.onnxruntime.runtime import session_store
from serving.engines.onnxruntime.session import memory_of
from serving.engines.sessions.runtime import SegmentFile, SessionStoreOptions
from tests.exporter.biased import biased
from tests.exporter.test_recut import sources

pytestmark = pytest.mark.slow

SHARED = ("trunk-", "shared-")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Four probes and three tasks that own their middle block, which a frozen one follows."""
    path = write_tiny_family(tmp_path_factory.mktemp("many") / "repository").path
    return copy_tasks(path, {"probe": Copies("probe", 4), "middle": Copies("branch", 3)})


def files(repository: Repository) -> dict[str, SegmentFile]:
    return {name: SegmentFile(segment, repository.model_file(name)) for name, segment in repository.segments.items()}


def test_copies_share_what_was_shared_and_own_what_was_a_tasks_own(repository: Repository) -> None:
    assert repository == read_repository(repository.path)
    assert sorted(repository.tasks) == ["branch-0000", "branch-0001", "branch-0002", *(f"probe-000{index}" for index in range(4))]
    chains = {name: [step.segment for step in task.steps] for name, task in repository.tasks.items()}
    shared = {name for name in repository.segments if name.startswith(SHARED)}
    assert {*chains["probe-0000"]} & {*chains["probe-0001"]} == shared
    assert {*chains["branch-0000"]} & {*chains["branch-0002"]} == {chains["probe-0000"][0], chains["probe-0000"][2]}
    assert len(repository.segments) == len(shared) + 4 + 2 * 3
    models = {repository.model_file(name).read_bytes() for name in repository.segments}
    assert len(models) == len(repository.segments)  # each has weights of its own


def test_a_task_whose_weights_are_hard_links_is_copied_with_them(tmp_path: Path) -> None:
    path = export_repository(
        sources({"one": biased(1, 1), "two": biased(2, 2)}), ExportOptions(tmp_path / "repo")
    ).repository.path
    copied = copy_tasks(path, {"one": Copies("copy", 2)})
    assert copied == read_repository(path)
    for segment in copied.segments.values():
        assert not segment.weight_files
        assert onnx.load(copied.model_file(segment.name)).graph.initializer[0].raw_data


def test_what_is_open_is_known_from_the_order_of_requests(repository: Repository) -> None:
    """The rule agrees with a session store of the same limit, at the start and after every request."""
    sizes = {name: memory_of(file) for name, file in files(repository).items()}
    limit = sum(sizes[name] for name in sizes if name.startswith(SHARED)) + round(2.5 * max(sizes.values()))
    state = OpenSegments(repository, limit)
    store = session_store(SessionStoreOptions(threads=1, provider="cpu", memory_limit_bytes=limit))
    uses = {name: sum(name == step.segment for task in repository.tasks.values() for step in task.steps) for name in sizes}
    store.open(sorted(files(repository).values(), key=lambda file: -uses[file.segment.name]), make_room=False)
    assert 0 < len(store.loaded()) == len(state) < len(sizes)
    for index in np.random.default_rng(0).integers(0, len(repository.tasks), 30):
        task = list(repository.tasks.values())[index]
        closed = {step.segment for step in task.steps} - store.loaded().keys()
        opened = state.ask(task)
        assert (opened > 0) == (len(closed) > 0)
        for step in task.steps:
            spec = repository.segments[step.segment].inputs[0]
            store.run(step.segment, [np.zeros((1, *spec.shape), np.uint8 if spec.dtype == "UINT8" else np.float32)])
        assert (len(state), state.bytes) == (len(store.loaded()), sum(store.loaded().values()))
    store.close_all()


def test_answers_are_told_apart_by_kind_and_state() -> None:
    answers = [Timed("probe-0001", "new", 3.0), Timed("probe-0002", "new", 4.0), Timed("a-b-0001", "open", 1.0)]
    assert by_state(answers) == {("probe", "new"): [3.0, 4.0], ("a-b", "open"): [1.0]}


def test_both_servers_are_measured_written_and_drawn(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    json_file, plot = tmp_path / "many.json", tmp_path / "many.png"
    options = ["--memory-limit-gb", "0.0012", "--again", "3", "--seconds", "0.2", "--clients", "2", "--threads", "1"]
    files = ["--json", str(json_file), "--plot", str(plot)]
    monkeypatch.setattr(sys, "argv", ["many_tasks", str(repository.path), *options, *files])
    main()
    assert "7 tasks, 13 segments" in capsys.readouterr().out
    found = json.loads(json_file.read_text())
    assert [server["cache"] for server in found["servers"]] == ["new", "known"]
    for server in found["servers"]:
        assert [answer["task"] for answer in server["answers"][:7]] == sorted(repository.tasks)
        assert {answer["state"] for answer in server["answers"]} == {server["cache"], "closed", "open"}
        assert len(server["answers"]) == 7 + 2 * 3
        assert server["mix"]["requests"] == len(server["mix"]["latencies_ms"]) > 0
        assert 0 < server["after_all"]["anonymous"] < server["after_all"]["resident"] > 20e6
    assert plot.read_bytes().startswith(b"\x89PNG")
