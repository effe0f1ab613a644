"""The load benchmark: what it computes from latencies, what its clients send, and what it does when requests fail."""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.framework.errors import NoSuchMeasurement
from benchmarks.framework.options import Options, Scale
from benchmarks.harness.closed_loop import Span
from benchmarks.harness.noise import Measurement
from benchmarks.harness.served import ServerProcess, served
from benchmarks.load.bare import BareEngine, EngineSetting, choose_setting, settings
from benchmarks.load.benchmark import knee_in_words, run
from benchmarks.load.errors import LoadGenMissing, Refused
from benchmarks.load.loadgen import Scenario, ScenarioJob, is_installed, read_summary, run_scenario
from benchmarks.load.measure import MeasuredLoad, Wall
from benchmarks.load.mixes import all_tasks, one_task, poisson_times, uniform, zipf
from benchmarks.load.senders import Closed, Open, SendingJob, Sent, send
from benchmarks.load.summary import KneeRule, Percentiles, Point, knee, open_rate, percentile, percentiles
from benchmarks.load.wires import Wire, address_of, choose_wires, make_requests
from benchmarks.models.tiny import TASKS, write_tiny_family
from benchmarks.studies.thread_allocation import cases, main
from benchmarks.studies.thread_allocation import describe as describe_lanes
from benchmarks.studies.thread_allocation import measure as measure_lanes
from contract.repository import ALL_TASKS, Repository

latencies = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=300)
RULE = KneeRule(slowdown=5.0, answered=0.97)


# ---- percentiles


@given(latencies, st.sampled_from([0, 1, 50, 90, 95, 99, 100]))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values)
    assert sum(value < found for value in values) < max(percent / 100 * len(values), 1)
    assert found == np.percentile(values, percent, method="inverted_cdf")


def test_percentiles_by_hand() -> None:
    assert percentiles([float(number) for number in range(200, 0, -1)]) == Percentiles(100, 180, 190, 198)
    assert percentiles([7.0]) == Percentiles(7, 7, 7, 7)
    assert percentiles([]) is None
    with pytest.raises(ValueError, match="0 values"):
        percentile([], 50)


# ---- the knee


def _point(offered: float, p99: float, answered: float = 1.0) -> Point:
    return Point(8, offered, 100, 100, answered * offered, Percentiles(1, 1, 1, p99))


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([_point(10, 2), _point(20, 4), _point(30, 50.1)], 20),  # p99 beyond 5 x 10 ms
        ([_point(10, 2), _point(20, 50), _point(30, 50)], 30),  # just within
        ([_point(10, 2), _point(20, 4, 0.96), _point(30, 4)], 10),  # answers fall behind; what is beyond does not count
        ([_point(10, 60), _point(20, 4)], 0),  # not even the smallest
        ([], 0),
    ],
)
def test_the_knee_is_the_last_rate_at_which_the_server_keeps_up(points: list[Point], expected: float) -> None:
    assert knee(points, 10.0, RULE) == knee(points[::-1], 10.0, RULE) == expected


@given(st.lists(st.tuples(st.floats(1, 1000), st.floats(0.1, 100), st.floats(0.5, 1)), max_size=10), st.floats(0.1, 50))
def test_a_knee_keeps_up_and_so_does_all_below_it(rows: list[tuple[float, float, float]], unloaded: float) -> None:
    points = [_point(*row) for row in rows]
    found = knee(points, unloaded, RULE)
    assert all(RULE.keeps_up(point, unloaded) for point in points if point.offered_per_s < found)
    assert found == 0 or any(point.offered_per_s == found and RULE.keeps_up(point, unloaded) for point in points)


def test_a_server_without_answers_does_not_keep_up() -> None:
    assert not RULE.keeps_up(Point(8, 10.0, 10, 0, 0.0, None), 10.0)


# ---- mixes and arrivals


@given(st.integers(1, 40))
def test_shares_add_up_and_zipf_falls(count: int) -> None:
    tasks = [f"t{number}" for number in range(count)]
    for mix in (uniform(tasks), zipf(tasks), one_task(tasks), all_tasks(tasks)):
        assert sum(mix.shares) == pytest.approx(1)
        assert set(mix.draw(50, 0)) <= set(mix.models)
    assert all(share == pytest.approx(zipf(tasks).shares[0] / (place + 1)) for place, share in enumerate(zipf(tasks).shares))
    assert all_tasks(tasks).models == (ALL_TASKS,)
    assert one_task(tasks).models == ("t0",)


def test_a_draw_follows_the_shares_and_the_seed() -> None:
    mix = zipf(["a", "b", "c"])
    drawn = mix.draw(6000, seed=0)
    assert [drawn.count(model) / 6000 for model in "abc"] == pytest.approx(mix.shares, abs=0.02)
    assert mix.draw(6000, seed=0) == drawn != mix.draw(6000, seed=1)


@given(st.floats(0.5, 500), st.floats(0.05, 5), st.integers(0, 100))
def test_arrivals_ascend_within_the_time(per_s: float, seconds: float, seed: int) -> None:
    times = poisson_times(per_s, seconds, seed)
    assert list(times) == sorted(times)
    assert all(0 < time < seconds for time in times)
    assert len(times) == round(per_s * seconds)


def test_gaps_between_arrivals_are_those_of_a_poisson_process() -> None:
    gaps = np.diff(poisson_times(100, 100, seed=0))  # exponential: as wide as long on average
    assert gaps.mean() == pytest.approx(0.01, rel=0.01)
    assert gaps.std() == pytest.approx(0.01, rel=0.05)


# ---- settings


def test_settings_use_all_cores_evenly() -> None:
    assert [(s.instances, s.threads) for s in settings(4, [None])] == [(None, 4), (1, 4), (2, 2), (4, 1)]
    assert EngineSetting(2, 1, 4).server == ("--instances", "2", "--threads", "1", "--max-batch-rows", "4")
    assert EngineSetting(None, 4).server == ("--threads", "4")


def test_the_server_has_the_engines_own_way_unless_another_is_clearly_better() -> None:
    own, wide, narrow = EngineSetting(None, 2), EngineSetting(1, 2), EngineSetting(2, 1)
    assert choose_setting({own: 18.7, wide: 16.0, narrow: 19.4}) == own  # 4 % is no difference
    assert choose_setting({own: 18.0, wide: 16.0, narrow: 19.4}) == narrow
    assert choose_setting({own: 20.0, wide: 16.0, narrow: 19.4}) == own


# ---- rates of what was sent


@given(st.lists(st.floats(0, 9.99), min_size=1, max_size=100), st.floats(0.01, 30))
def test_latency_alone_is_not_falling_behind(due: list[float], latency: float) -> None:
    job = SendingJob(Wire.grpc, "", (b"",), 1, Open(tuple(due), 10.0))
    per_s = open_rate([Span(time, time + latency) for time in due], 10.0)
    assert Sent((), per_s, ()).point(job).offered_per_s == len(due) / 10 == pytest.approx(per_s)


@given(st.floats(20, 200), st.floats(1.03, 3), st.floats(5, 30))
def test_more_than_a_server_can_do_is_answered_as_fast_as_it_can(can: float, excess: float, seconds: float) -> None:
    due = [number / (can * excess) for number in range(round(can * excess * seconds))]
    spans = [Span(time, (number + 1) / can) for number, time in enumerate(due)]  # one lane that never waits
    assert open_rate(spans, seconds) == pytest.approx(can, rel=0.03)
    assert open_rate(spans[: len(spans) // 2], seconds) == pytest.approx(len(spans) // 2 / seconds)  # nothing of the second half


def test_one_slow_request_at_the_end_is_not_falling_behind() -> None:
    spans = [Span(float(due), due + 0.1) for due in range(10)]
    assert open_rate([*spans[:-1], Span(9.0, 10.0)], 10.0) == pytest.approx(1.0)
    assert open_rate([], 10.0) == 0.0


def test_a_server_that_becomes_faster_answers_no_more_than_it_is_asked() -> None:
    assert open_rate([Span(float(due), due + (5.0 if due < 5 else 0.1)) for due in range(10)], 10.0) == 1.0


def test_a_refusal_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(Refused("429", "too many")))
    assert str(error) == "The server refused a request (429): too many"


# ---- against a server


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return write_tiny_family(tmp_path_factory.mktemp("load") / "repository")


@pytest.fixture(scope="module")
def server(repository: Repository) -> Iterator[ServerProcess]:
    with served(repository.path, "--no-segment-cache", "--no-learn-rows", "--threads", "1", "--log-level", "error") as process:
        yield process


def _job(repository: Repository, server: ServerProcess, wire: Wire, load: Closed | Open) -> SendingJob:
    requests = make_requests(repository, wire, [*TASKS, ALL_TASKS])
    return SendingJob(wire, address_of(server, wire), tuple(requests.values()), 3, load)


def test_latencies_of_an_open_loop_count_from_when_requests_were_due() -> None:
    """A server that is slow delays all that are due meanwhile, not only the ones that it has."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            await asyncio.sleep(0.05)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def work() -> Sent:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            job = SendingJob(Wire.http, f"{host}:{port}", (b"x",), 1, Open((0.0, 0.01, 0.02, 0.03), 0.04))
            return await asyncio.to_thread(send, job)

    latencies = asyncio.run(work()).latencies_ms
    # Each is answered 50 ms after the one before, but was due only 10 ms later.
    assert len(latencies) == 4
    assert all(latency >= 50 + 40 * place for place, latency in enumerate(latencies))


@pytest.mark.slow
@pytest.mark.parametrize("wire", Wire)
def test_every_request_is_answered_over_every_wire(repository: Repository, server: ServerProcess, wire: Wire) -> None:
    due = tuple(place / 200 for place in range(20))
    opened = _job(repository, server, wire, Open(due, 0.1))
    sent = send(opened)
    assert len(sent.latencies_ms) == len(due)
    assert sent.failures == ()
    assert sent.point(opened).offered_per_s == pytest.approx(200)
    closed = _job(repository, server, wire, Closed(0.1))
    point = send(closed).point(closed)
    assert point.sent == point.answered >= 1  # the connection that was the last to be answered sends the first that counts
    assert point.offered_per_s == 0 < point.per_s
    assert point.latency is not None


def test_a_knee_at_the_largest_rate_that_was_tried_is_a_least_one() -> None:
    points = [Point(4, rate, 10, 10, rate, None) for rate in (5.0, 10.0)]
    opened = [MeasuredLoad(Wire.grpc, "mix", Measurement(point, 0.0, 1)) for point in points]
    assert [knee_in_words(Wall(Wire.grpc, 1.0, 9.0, knee), opened) for knee in (0.0, 5.0, 10.0)] == [
        "fewer than 5",
        "5",
        "at least 10",
    ]


def test_words_choose_wires_and_a_wrong_one_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    assert choose_wires(()) == tuple(Wire)
    assert choose_wires(("GRPC", "http")) == (Wire.grpc, Wire.http)
    assert choose_wires(("jpeg",)) == (Wire.predict,)
    with pytest.raises(NoSuchMeasurement, match=r"contains 'quic'; there are gRPC, binary HTTP, JPEG to /predict\."):
        run(Options(tmp_path, Scale.tiny, only=("quic",)))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_one_wire_alone_is_measured_and_compared_with_the_engine(tmp_path: Path) -> None:
    result = run(Options(tmp_path, Scale.tiny, threads=1, only=("jpeg",)))
    assert result.failed == ()
    assert {row["wire"] for table in result.tables for row in table.rows if "wire" in row} == {Wire.predict}
    assert "over JPEG to /predict of what the bare engine does" in result.headline


@pytest.mark.slow
def test_failures_are_counted_and_no_latencies(repository: Repository, server: ServerProcess) -> None:
    good = make_requests(repository, Wire.http, ["probe"])["probe"]
    wrong = good.replace(b"/models/probe/", b"/models/nobod/")
    job = SendingJob(Wire.http, address_of(server, Wire.http), (good, wrong), 1, Open((0.0, 0.01, 0.02, 0.03), 0.04))
    sent = send(job)
    assert len(sent.latencies_ms) == len(sent.failures) == 2
    assert "nobod" in sent.failures[0]
    assert sent.point(job).answered == 2


@pytest.mark.slow
def test_every_way_to_share_out_the_cores_is_measured_in_every_case(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = cases(repository, [1, 3])
    assert [(case.name, case.callers) for case in asked] == [(name, n) for name in ("one task", "all tasks") for n in (1, 3)]
    ways = settings(2, [None])
    found = measure_lanes(repository, ways, asked, turns=2, seconds=0.02, cache=tmp_path)
    assert set(found) == {(case, way) for case in asked for way in ways}
    assert all(len(one.per_s) == len(one.latency_ms) == 2 and min(one.per_s + one.latency_ms) > 0 for one in found.values())
    assert len(describe_lanes(found).splitlines()) == len(asked) * len(ways)
    main([str(repository.path), "--turns", "1", "--seconds", "0.02", "--callers", "1", "--threads", "1"])
    assert capsys.readouterr().out.count("1 callers") == 2 * 2


@pytest.mark.slow
def test_the_bare_engine_answers_each_mix(repository: Repository, tmp_path: Path) -> None:
    with BareEngine(repository, EngineSetting(None, 2), tmp_path) as engine:
        assert engine.per_s([*TASKS, ALL_TASKS], callers=4, seconds=0.1) > 0


# ---- MLPerf's load generator


SUMMARY = """SUT name : PySUT
Scenario : Server
Completed samples per second    : 101.01
Result is : INVALID
  Performance constraints satisfied : NO
50.00 percentile latency (ns)   : 2440505
90.00 percentile latency (ns)   : 3814841
99.00 percentile latency (ns)   : 6873951
"""


def test_a_summary_is_read() -> None:
    found = read_summary(Scenario.server, SUMMARY)
    assert (found.figure, found.p50_ms, found.p99_ms) == (101.01, 2.440505, 6.873951)
    assert found.valid is found.in_time is False
    fine = SUMMARY.replace("INVALID", "VALID").replace("satisfied : NO", "satisfied : Yes")
    assert read_summary(Scenario.server, fine).valid is read_summary(Scenario.server, fine).in_time is True
    assert not read_summary(Scenario.server, fine, ["lost"]).valid  # LoadGen does not know


def test_without_loadgen_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    assert not is_installed()
    with pytest.raises(LoadGenMissing, match=r"espalier\[bench\]"):
        run_scenario(ScenarioJob(Scenario.single, Wire.http, "127.0.0.1:1", (b"",), 1, 0.1, 1.0, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", Scenario)
def test_loadgen_judges_every_scenario(
    repository: Repository, server: ServerProcess, scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlperf_loadgen")
    monkeypatch.chdir(tmp_path)
    requests = tuple(make_requests(repository, Wire.http, TASKS).values())
    found = run_scenario(ScenarioJob(scenario, Wire.http, address_of(server, Wire.http), requests, 2, 0.1, 50.0, 1000.0))
    assert found.scenario is scenario
    assert found.figure > 0 < found.p50_ms <= found.p90_ms <= found.p99_ms
    assert found.failures == ()
    assert list(tmp_path.iterdir()) == []  # it leaves nothing where it was started
