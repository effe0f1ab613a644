"""The benchmark of the peers, at a size that says nothing of speed, on what is installed anyway: ours and FastAPI."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from benchmarks.peers.lines import count_lines
from benchmarks.peers.measure import Plan, Row, measure
from benchmarks.peers.peers import APPS, SHARED, Endpoint, Peer, Server, all_peers
from benchmarks.peers.processes import free_port, started
from benchmarks.peers.report import table, to_json
from benchmarks.peers.triton_models import write_separate, write_shared
from benchmarks.peers.wires import Form, RawBody
from benchmarks.peers.work import Work, prepare_work
from benchmarks.timing import Timing
from benchmarks.tiny import write_tiny_family, write_tiny_forks
from serving.repository.config import parse_text

PLAN = Plan(counts=(1, 2), turns=2, runs=2, clients=2, seconds=0.1, throughput_turns=1, threads=1, ready_s=60)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("work")
    repository, networks = write_tiny_forks(folder, 2)
    return prepare_work(repository, networks, folder / "models")


def test_the_hand_written_trunk_and_heads_are_the_whole_networks(work: Work) -> None:
    shared = work.models / "shared"
    trunk = ort.InferenceSession(shared / "trunk.onnx")
    features = trunk.run(None, {trunk.get_inputs()[0].name: work.image})[0]
    for task, answer in work.answers.items():
        head = ort.InferenceSession(shared / "heads" / f"{task}.onnx")
        np.testing.assert_allclose(head.run(None, {head.get_inputs()[0].name: features})[0], answer, rtol=1e-5)


@pytest.mark.slow
def test_tasks_that_fork_at_several_places_are_refused(tmp_path: Path) -> None:
    repository = write_tiny_family(tmp_path / "repository")
    networks = {"late": tmp_path / "late.onnx", "early": tmp_path / "early.onnx"}
    with pytest.raises(ValueError, match="must fork at the same place"):
        prepare_work(repository, networks, tmp_path / "models")


@pytest.mark.slow
def test_ours_and_fastapi_are_measured_and_what_is_missing_says_why(work: Work) -> None:
    @contextmanager
    def ends_at_once(work: Work, threads: int) -> Iterator[Server]:
        with started([sys.executable, "-c", "raise SystemExit('no such model')"], APPS, {}) as (processes, log):
            yield Server(processes, [Endpoint("HTTP", RawBody(), free_port())], 1, log.check)

    peers = [peer for peer in all_peers() if peer.name in ("espalier", "FastAPI by hand") and peer.variant == SHARED]
    rows = measure(work, [*peers, Peer("broken", SHARED, "1", ends_at_once)], PLAN)
    assert [(row.peer, row.protocol) for row in rows] == [
        ("espalier", "HTTP"),
        ("espalier", "gRPC"),
        ("FastAPI by hand", "HTTP"),
        ("broken", ""),
    ]
    assert rows[-1].missing == "it ended with exit code 1: no such model"
    for row in rows[:-1]:
        assert row.missing == ""
        assert {count: timing.runs for count, timing in row.latency.items()} == {1: 4, 2: 4}
        assert set(row.per_s) == {1, 2}
        assert row.memory_bytes > 10**7
    assert [row.lines > 0 for row in rows[:-1]] == [False, False, True]


@pytest.mark.slow
def test_wrong_answers_are_found(work: Work) -> None:
    (fastapi,) = [peer for peer in all_peers() if (peer.name, peer.variant) == ("FastAPI by hand", SHARED)]
    wrong = replace(work, answers={task: answer + 1 for task, answer in work.answers.items()})
    (row,) = measure(wrong, [fastapi], PLAN)
    assert row.missing == "its answers are wrong for task-0"


def test_lines_of_code_are_counted_without_comments_docstrings_and_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(
        '''"""What it is."""\n\n# why\nimport os\n\n\ndef f(x):\n    """Do it."""\n    return g(\n        x,  # it\n    )\n'''
    )
    assert count_lines([file]) == 5  # import, def, and three of the return
    config = tmp_path / "config.pbtxt"
    config.write_text("max_batch_size: 1\n\ninput { }\n")
    assert count_lines([file, config]) == 7


def test_every_app_of_a_peer_is_there_in_both_variants() -> None:
    names = {path.relative_to(APPS).as_posix() for path in APPS.rglob("*.py")}
    for kind in ("separate", "shared"):
        wanted = {f"{peer}_{kind}.py" for peer in ("fastapi", "litserve", "bentoml", "ray")} | {f"mlserver_{kind}/runtime.py"}
        assert wanted <= names
    assert len({(peer.name, peer.variant) for peer in all_peers()}) == len(all_peers()) == 14
    assert all(peer.version for peer in all_peers())


@pytest.mark.parametrize("write", [write_separate, write_shared])
def test_what_one_would_write_for_triton_names_what_the_networks_have(
    work: Work, tmp_path: Path, write: Callable[..., None]
) -> None:
    write(work.models, tmp_path / "triton")
    configs = {file.parent.name: parse_text(file.read_text(), file.name) for file in (tmp_path / "triton").glob("*/config.pbtxt")}
    ensemble = configs.pop("all_tasks")
    assert [output.name for output in ensemble.output] == work.tasks
    for step in ensemble.ensemble_scheduling.step:
        config = configs.pop(step.model_name)
        network = onnx.load(tmp_path / "triton" / step.model_name / "1" / "model.onnx").graph
        assert [*step.input_map] == [value.name for value in config.input] == [value.name for value in network.input]
        assert [*step.output_map] == [value.name for value in config.output] == [value.name for value in network.output]
    assert not configs


def test_a_server_sleeps_wakes_and_ends_with_all_that_it_has_started() -> None:
    child = "import time; time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with started([sys.executable, "-c", parent], APPS, {}) as (processes, _):
        deadline = time.monotonic() + 20
        while len(members := processes.all()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(members) == 2
        processes.pause()
        assert wait_for(members, "T")
        with processes.awake():
            assert wait_for(members, "SR")
        assert wait_for(members, "T")
    assert wait_for(members, "Z", gone=True)


def wait_for(members: Sequence[int], states: str, gone: bool = False) -> bool:
    """Return whether all of them come to be in one of `states`."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = [state(member) for member in members]
        if all(value in states if value else gone for value in found):
            return True
        time.sleep(0.01)
    return False


def state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


ROWS = [
    Row("ours", SHARED, "1", "HTTP", {1: Timing(2.0, 1.5, 2.5, 4), 2: Timing(3.0, 2, 4, 4)}, {1: 10.0, 2: 5.0}, 2 * 10**8, 0),
    Row("theirs", SHARED, "2", missing="it ended with exit code 1: no wheel"),
]


def test_the_table_has_a_line_per_row_and_says_what_is_missing() -> None:
    lines = table(ROWS, PLAN).splitlines()
    assert lines[2] == "| ours (1) | shared trunk | HTTP | 2.0 (1.5-2.5) | 3.0 (2.0-4.0) | 10.0 | 5.0 | 200 | 0 |"
    assert lines[-1] == "- theirs, shared trunk: not measured, for it ended with exit code 1: no wheel"
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")


def test_json_has_every_number_the_plan_and_the_machine() -> None:
    data = json.loads(to_json(ROWS, PLAN))
    assert data["machine"]
    assert data["plan"]["threads"] == 1
    assert data["rows"][0]["latency"]["1"] == {"median_ms": 2.0, "low_ms": 1.5, "high_ms": 2.5, "runs": 4}
    assert data["rows"][1]["missing"] == "it ended with exit code 1: no wheel"


def test_a_form_has_the_image_and_the_tasks(work: Work) -> None:
    head, _, body = Form().request(work.image, ["a", "b"]).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b'name="tasks"\r\n\r\na,b\r\n' in body
    assert b"octet-stream\r\n\r\n" + work.image.tobytes() + b"\r\n--" in body
