"""The benchmark of the peers, at a size that says nothing of speed, on what is installed anyway: ours and FastAPI."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from benchmarks.framework.errors import NoSuchRival
from benchmarks.framework.options import Options
from benchmarks.harness.http_wire import HttpConnection
from benchmarks.harness.noise import NoiseWatch
from benchmarks.harness.timing import Timing
from benchmarks.models.tiny import write_tiny_family, write_tiny_forks
from benchmarks.peers.benchmark import plan_of
from benchmarks.peers.measure import MeasurePlan, RivalRow, measure
from benchmarks.peers.processes import free_port, started
from benchmarks.peers.rivals import APPS, all_rivals, choose_rivals
from benchmarks.peers.server import (
    HEADS_SIDE,
    ON_OPENVINO,
    SEPARATE,
    SEPARATE_SIDE,
    SHARED,
    Endpoint,
    Rival,
    RivalServer,
    count_lines,
)
from benchmarks.peers.tables import headline, make_result
from benchmarks.peers.tiny import choose_single, measure_tiny
from benchmarks.peers.tritons import write_separate, write_shared
from benchmarks.peers.wires import Form, RawBody
from benchmarks.peers.work import Work, WorkSample, prepare_work
from contract.repository.config import parse_text

STEADY = NoiseWatch(lambda: 1.0)
PLAN = MeasurePlan(
    counts=(1, 2), turns=2, runs=2, clients=2, seconds=0.1, throughput_turns=1, threads=1, ready_s=60, room_bytes=0
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("work")
    repository, networks = write_tiny_forks(folder, 2)
    return prepare_work(repository, networks, folder / "models")


def test_the_hand_written_trunk_and_heads_are_the_whole_networks(work: Work) -> None:
    shared = work.models / "shared"
    trunk = ort.InferenceSession(shared / "trunk.onnx")
    features = trunk.run(None, {trunk.get_inputs()[0].name: work.image})[0]
    for task, answer in work.samples[0].answers.items():
        head = ort.InferenceSession(shared / "heads" / f"{task}.onnx")
        np.testing.assert_allclose(head.run(None, {head.get_inputs()[0].name: features})[0], answer, rtol=1e-5)


@pytest.mark.slow
def test_tasks_that_fork_at_several_places_are_refused(tmp_path: Path) -> None:
    repository = write_tiny_family(tmp_path / "repository")
    networks = {"late": tmp_path / "late.onnx", "early": tmp_path / "early.onnx"}
    with pytest.raises(ValueError, match="must fork at the same place"):
        prepare_work(repository, networks, tmp_path / "models")


@contextmanager
def ends_at_once(work: Work, threads: int) -> Iterator[RivalServer]:
    with started([sys.executable, "-c", "raise SystemExit('no such model')"], APPS, {}) as (processes, log):
        yield RivalServer(processes, [Endpoint("HTTP", RawBody(), free_port())], 1, log.check)


def test_what_cannot_be_measured_says_why(work: Work, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.peers.environments.REQUIREMENTS", tmp_path)
    peers = [
        Rival("broken", SHARED, "1", ends_at_once),
        Rival("absent", SEPARATE, "1", ends_at_once, "absent"),
        Rival("absent", SHARED, "1", ends_at_once, "absent"),
    ]
    said: list[str] = []
    broken, *absent = measure(work, peers, PLAN, STEADY, said.append)
    assert broken.missing == "it ended with exit code 1: no such model"
    assert all("absent.txt" in row.missing for row in absent)  # it was not even started
    assert said[0] == "Starting broken, shared trunk"
    assert not any("Starting absent" in sentence for sentence in said)
    (row,) = measure(work, peers[:1], replace(PLAN, room_bytes=10**18), STEADY)
    assert "too little memory" in row.missing


@pytest.mark.slow
def test_answers_are_checked_and_turns_beside_a_changing_null_loop_are_marked(work: Work) -> None:
    (fastapi,) = [peer for peer in all_rivals() if (peer.name, peer.variant) == ("FastAPI by hand", SHARED)]
    wrong = WorkSample(work.image, {task: answer + 1 for task, answer in work.samples[0].answers.items()})
    with fastapi.serve(work, PLAN.threads) as server:
        running = Rival("running", SHARED, "1", lambda work, threads: nullcontext(server))
        (row,) = measure(work, [running], PLAN, NoiseWatch(iter([1, 1.2, 1.5, 1, 1, 1.2, 1, 1, 1, 2, 1, 2]).__next__))
        server.processes.resume()
        (refused,) = measure(replace(work, samples=(wrong,)), [running], PLAN, STEADY)
        (mixed_up,) = measure(replace(work, samples=(work.samples[0], wrong)), [running], PLAN, STEADY)
    assert {count: timing.runs for count, timing in row.latency.items()} == {1: 4, 2: 4}
    assert set(row.per_s) == {1, 2}
    assert row.memory_bytes > 10**7
    assert row.lines > 0
    assert (row.turns, row.mark) == (3, "noisy (2 of 3 turns)")  # the second turn was quiet when it was measured again
    assert refused.missing == "its answers are wrong for task-0"
    assert mixed_up.missing == "its answers are wrong for task-1"  # only what a second client gets


@pytest.mark.slow
def test_a_peer_that_ends_under_load_keeps_its_latencies(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object) -> float:
        raise RuntimeError("500")

    monkeypatch.setattr("benchmarks.peers.measure.throughput", refused)
    (fastapi,) = [peer for peer in all_rivals() if (peer.name, peer.variant) == ("FastAPI by hand", SHARED)]
    (row,) = measure(work, [fastapi], replace(PLAN, turns=1), STEADY)
    assert row.missing == "it failed when it was measured: 500"
    assert set(row.latency) == {1, 2}
    assert row.per_s == {}


@pytest.mark.slow
@pytest.mark.parametrize("variant", [SEPARATE_SIDE, HEADS_SIDE])
def test_networks_that_run_side_by_side_answer_alike(work: Work, variant: str) -> None:
    chosen = [peer for peer in all_rivals() if (peer.name, peer.variant) == ("FastAPI by hand", variant)]
    (row,) = measure(work, chosen, replace(PLAN, turns=1, threads=2), STEADY)  # which compares the answers first
    assert row.missing == ""
    assert set(row.latency) == {1, 2}


@pytest.mark.slow
def test_we_are_measured_on_the_other_engine_too(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    fp32, bf16 = (peer for peer in all_rivals() if peer.name == ON_OPENVINO)
    rows = measure(work, [fp32], replace(PLAN, turns=1), STEADY)  # which compares the answers first
    assert [(row.variant, row.missing, row.protocol) for row in rows] == [
        ("shared trunk, fp32", "", wire) for wire in ("HTTP", "gRPC")
    ]
    assert all(set(row.latency) == {1, 2} for row in rows)
    monkeypatch.setattr("benchmarks.peers.rivals.has_bf16", lambda: False)
    (refused,) = measure(work, [bf16], PLAN, STEADY)
    assert refused.missing == "this processor does not compute in bf16"
    monkeypatch.setattr("benchmarks.peers.rivals.find_spec", lambda name: None)
    (refused,) = measure(work, [fp32], PLAN, STEADY)
    assert refused.missing == "openvino is not installed"


@pytest.mark.slow
def test_what_each_adds_to_a_tiny_network_is_measured_with_one_client_and_with_several(work: Work) -> None:
    (fastapi,) = choose_single(choose_rivals(["FastAPI by hand"]))
    assert fastapi.variant == SEPARATE
    rows = measure_tiny(work, [fastapi, Rival("broken", SHARED, "1", ends_at_once)], replace(PLAN, throughput_turns=2))
    measured, broken = rows
    assert [*measured.loads] == [1, PLAN.clients]
    for load in measured.loads.values():
        assert len(load.per_s) == 2
        assert min(*load.per_s, *load.latency_ms) > 0
        assert min(load.processor_ms) >= 0
    assert measured.added_ms > 0
    assert str(measured).startswith("FastAPI by hand, separate networks, HTTP")
    assert str(broken) == "broken, shared trunk: not measured, or not to the end: it ended with exit code 1: no such model"


def test_one_task_is_measured_on_separate_networks_where_there_are_such() -> None:
    variants = {peer.name: peer.variant for peer in choose_single(all_rivals())}
    assert variants["espalier"] == SHARED
    assert {variants[name] for name in ("LitServe", "BentoML", "MLServer", "Ray Serve", "FastAPI by hand")} == {SEPARATE}


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
        assert wanted | {f"fastapi_{kind}_side.py", "litserve_batched.py", "bentoml_batched.py"} <= names
    assert len({(peer.name, peer.variant) for peer in all_rivals()}) == len(all_rivals()) == 25
    assert all(peer.version for peer in all_rivals())


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


def row(peer: str, variant: str, ms: float, megabytes: int = 100) -> RivalRow:
    latency = {count: Timing(count * ms, ms, 3 * ms, 4) for count in (1, 2)}
    return RivalRow(peer, variant, "1", "HTTP", latency, {1: 10.0, 2: 5.0}, megabytes * 10**6, 7, turns=3)


ROWS = [
    row("espalier", SHARED, 2.0),
    row("theirs", SEPARATE, 4.0, 300),
    row("theirs", SHARED, 1.0),
    RivalRow("absent", SHARED, "2", missing="it ended with exit code 1: no wheel"),
]


def test_the_result_has_a_line_per_row_and_says_what_is_missing() -> None:
    result = make_result(ROWS, replace(PLAN, seconds=1.0), ())
    latency, throughput = result.tables
    assert [line["ms_2"] for line in latency.rows[:3]] == [ROWS[place].latency[2] for place in range(3)]
    assert latency.rows[-1]["missing"] == "it ended with exit code 1: no wheel"
    assert [line["per_s_1"] for line in throughput.rows] == [10.0] * 3
    assert result.failed == ()
    assert result.raw["plan"]["threads"] == 1
    assert result.raw["rows"][0]["latency"]["1"]["median_ms"] == 2.0


def test_what_was_measured_before_a_peer_failed_stays() -> None:
    failed = replace(row("failing", SHARED, 3.0), missing="it failed when it was measured: 500", per_s={})
    latency, throughput = make_result([*ROWS, failed], PLAN, ()).tables
    assert latency.rows[-1]["ms_2"] == failed.latency[2]
    assert latency.rows[-1]["missing"] == "it failed when it was measured: 500"
    assert "failing" not in {line["peer"] for line in throughput.rows}
    assert "failing, HTTP" in {series.name for series in make_result([*ROWS, failed], PLAN, ()).plots[0].series}


def test_plots_show_the_fastest_of_each_peer() -> None:
    odd = [row("odd", SEPARATE, 0.5, 200), row("odd", SHARED, 3.0)]
    by_tasks, by_memory = make_result([*ROWS, row("theirs", f"{SHARED}, slowly", 9.0), *odd], PLAN, ()).plots
    lines = {series.name: series.y for series in by_tasks.series}
    assert lines == {
        "espalier, HTTP": (2.0, 4.0),
        "theirs, HTTP": (1.0, 2.0),
        "odd, HTTP": (3.0, 6.0),
        "separate networks: odd": (0.5, 1.0),
    }
    assert [(series.name, series.x, series.y) for series in by_memory.series] == [
        ("espalier", (100.0,), (4.0,)),
        ("theirs", (300.0, 100.0), (8.0, 2.0)),
        ("odd", (200.0, 100.0), (1.0, 6.0)),
    ]


def test_separate_networks_are_such_side_by_side_too() -> None:
    side = row("theirs", SEPARATE_SIDE, 3.0, 320)
    assert "; theirs, the fastest other with separate networks, 6.0 ms, 1.50 times that. " in headline([*ROWS, side], (1, 2))
    by_tasks, _ = make_result([ROWS[0], side], PLAN, ()).plots
    assert [series.name for series in by_tasks.series] == ["espalier, HTTP", "separate networks: theirs"]
    (theirs,) = [series for series in make_result([*ROWS, side], PLAN, ()).plots[1].series if series.name == "theirs"]
    assert (theirs.x, theirs.y) == ((320.0, 100.0), (6.0, 2.0))  # the faster of the separate ones, then the trunk


def test_turns_are_as_many_as_the_runs_take(tmp_path: Path) -> None:
    assert plan_of(Options(tmp_path)).turns == 10
    assert [plan_of(Options(tmp_path, runs=runs)).turns for runs in (1, 30, 31)] == [1, 5, 6]


def test_the_headline_says_who_is_faster_whoever_it_is() -> None:
    busy = replace(ROWS[1], per_s={1: 12.0, 2: 4.0})
    assert headline([ROWS[0], busy, *ROWS[2:]], (1, 2)) == (
        "A request for 2 tasks takes espalier 4.0 ms; theirs, the fastest other with a shared trunk, 2.0 ms, 0.50 times that; theirs, "
        "the fastest other with separate networks, 8.0 ms, 2.00 times that. "
        f"Asked for 1 task by several clients at once, espalier answers 10.0/s, theirs ({busy.variant}) 12.0/s. "
        "Asked for 2 tasks by several clients at once, espalier answers 5.0/s, theirs (shared trunk) 5.0/s."
    )
    assert headline(ROWS[:1], (1, 2)).startswith(
        "A request for 2 tasks takes espalier 4.0 ms. Asked for 1 task by several clients"
    )
    assert headline(ROWS[1:], (1, 2)) == "espalier was not measured."
    fast = row(ON_OPENVINO, f"{SHARED}, bf16", 0.1)  # another engine in another precision is neither ours there nor another's
    assert headline([*ROWS, fast], (1, 2)) == headline(ROWS, (1, 2))


def test_without_ours_the_numbers_are_not_to_be_used() -> None:
    result = make_result([replace(ROWS[-1], peer="espalier")], PLAN, ())
    assert result.failed == ("espalier could not be measured: it ended with exit code 1: no wheel.",)
    assert result.plots == ()


def test_peers_are_chosen_by_words() -> None:
    assert len(choose_rivals([])) == len(all_rivals())
    assert {peer.name for peer in choose_rivals(["LITSERVE", "espalier's"])} == {"LitServe", "Triton, espalier's repository"}
    assert {peer.name for peer in choose_rivals(["Espalier"])} == {"espalier"}  # a whole name, though it is a part of others
    assert {peer.variant for peer in choose_rivals(["1 thread a model"])} == {f"{SHARED}, 1 thread a model"}
    with pytest.raises(NoSuchRival, match=r"'torchserve'; there are espalier, .*Ray Serve"):
        choose_rivals(["LitServe", "TorchServe"])


def test_a_body_in_pieces_is_put_together() -> None:
    async def ask() -> list[bytes]:
        reader = asyncio.StreamReader()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        reader.feed_data(head + b"4;why=not\r\nab\r\n\r\n10\r\n0123456789abcdef\r\n0\r\nAfter: all\r\n\r\n")
        reader.feed_data(head + b"1\r\nx\r\n0\r\n\r\n")
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            connection = HttpConnection(reader, writer)
            replies = [await connection.ask(b"") for _ in range(2)]
            await connection.close()
        assert all(reply.keeps_open for reply in replies)
        return [reply.body for reply in replies]

    assert asyncio.run(ask()) == [b"ab\r\n0123456789abcdef", b"x"]


def test_a_form_has_the_image_and_the_tasks(work: Work) -> None:
    head, _, body = Form().request(work.image, ["a", "b"]).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b'name="tasks"\r\n\r\na,b\r\n' in body
    assert b"octet-stream\r\n\r\n" + work.image.tobytes() + b"\r\n--" in body
