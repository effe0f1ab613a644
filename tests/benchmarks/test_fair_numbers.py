"""Numbers of benchmarks that a person decides by: each is what its name says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from benchmarks.deploy.benchmark import _headline as deploy_headline
from benchmarks.deploy.benchmark import _table as deploy_table
from benchmarks.deploy.benchmark import tail
from benchmarks.deploy.results import TaskChange, Timeline, TimelineRound
from benchmarks.deploy.results import TimelineOptions as TimelineOptions
from benchmarks.framework.result import Plot, Series
from benchmarks.harness.noise import Measurement
from benchmarks.harness.open_loop import Ask, TimedRequest, find_capacity
from benchmarks.harness.timing import Timing
from benchmarks.memory.measure import separate_resident
from benchmarks.merge.benchmark import _headline as merge_headline
from benchmarks.merge.measure import ONNX, TORCH, Group
from benchmarks.models.separate import network_options
from benchmarks.peers.measure import MeasurePlan, RivalRow
from benchmarks.peers.tables import throughput_table
from espalier.bench.plots import draw


def test_capacity_is_not_more_than_a_server_with_one_lane_answers() -> None:
    service_s = 0.02
    lane = asyncio.Lock()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            async with lane:
                await asyncio.sleep(service_s)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def work() -> float:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            return await find_capacity(server.sockets[0].getsockname(), [Ask("a", b"x", b"")], connections=8, seconds=0.2)

    assert 0 < asyncio.run(work()) <= 1 / service_s


@pytest.mark.parametrize(("seconds", "shown"), [(1.5, None), (4.0, 2.0)])
def test_a_rate_of_fewer_answers_than_clients_is_no_number(seconds: float, shown: float | None) -> None:
    rows = [
        RivalRow("slow", "separate networks", "1", "HTTP", per_s={8: 2.0}),
        RivalRow("absent", "shared trunk", "1", missing="why"),
    ]
    table = throughput_table(rows, MeasurePlan(counts=(8,), clients=8, seconds=seconds))
    assert [row["per_s_8"] for row in table.rows] == [shown]


@settings(max_examples=50)
@given(st.lists(st.integers(20, 5000), min_size=1, max_size=4))
def test_a_percentile_has_requests_above_it(counts: list[int]) -> None:
    percent = tail(counts)
    assert all(np.sum(np.arange(count) > np.percentile(np.arange(count), percent)) >= 2 for count in counts)
    assert percent == 99 or min(counts) < 200


@pytest.mark.parametrize(("quiet", "percent"), [(30, 90), (300, 99)])
def test_few_requests_have_no_99th_percentile(quiet: int, percent: int) -> None:
    due = [*np.linspace(0, 9.9, quiet), *np.linspace(10, 10.9, quiet), *np.linspace(11, 11.9, quiet)]
    requests = tuple(TimedRequest(at, 1 + place % 10, "other", 200, True, True) for place, at in enumerate(due))
    changes = (TaskChange("unload", 10, 0.1), TaskChange("load", 10.5, 0.1, 0.2), TaskChange("ask", 11.5, 0.0, 0.1))
    rounds = (TimelineRound(True, 10, 11), TimelineRound(False, 11, 12))
    timeline = Timeline(TimelineOptions("late", deploys=1), 1.0, requests, changes, rounds)
    table = deploy_table(Measurement(timeline, 0.0, 1))
    assert f"{percent}th percentile" in [column.heading for column in table.columns]
    assert f"their {percent}th percentile was 1.0" in deploy_headline(timeline)
    assert table.rows[0]["tail"] == pytest.approx(np.percentile(timeline.quiet_ms(), percent))


def test_gains_are_said_from_the_worst_to_the_best_and_that_the_machine_was_noisy() -> None:
    def group(runtime: str, stacked_ms: float, drift: float = 0.0) -> Group:
        times = {"apart": Timing(10, 10, 10, 5), "stacked": Timing(stacked_ms, stacked_ms, stacked_ms, 5)}
        return Group(runtime, "layer4.0", 2, 1, 0.0, Measurement(times, drift, 1))

    said = merge_headline([], [group(ONNX, 20), group(ONNX, 5), group(ONNX, 8), group(TORCH, 8, drift=0.4)], [])
    assert "stacking a frozen suffix 0.50x to 2.00x and 1.25x." in said
    assert said.endswith("While 1 of them were measured, the machine was noisy.")


@pytest.mark.slow
@pytest.mark.parametrize("values", [(112.9, 121.4, 462.2), (4.0, 4.0), (1.0, 8.0)])
def test_every_point_of_a_logarithmic_axis_lies_between_two_labels(values: tuple[float, ...]) -> None:
    plot = Plot("p", "P", "", "x", "y", (Series("a", values, values),), log="xy")
    (axes,) = draw(plot).axes
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        shown = [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
        assert min(shown) <= min(values)
        assert max(values) <= max(shown)


@pytest.mark.slow
def test_a_separate_network_takes_its_weights_and_not_what_optimising_it_left_free(tmp_path: Path) -> None:
    """The engine gives that back, so that one task alone would seem to take half as much when it is shared."""
    random = np.random.default_rng(0)
    nodes, weights, source = [], [], "image"
    for layer in range(6):
        kernel = random.normal(size=(384, 384, 3, 3)).astype(np.float32)
        scale = np.ones(384, np.float32)
        weights += [numpy_helper.from_array(kernel, f"w{layer}")]
        weights += [numpy_helper.from_array(scale, f"{name}{layer}") for name in ("scale", "bias", "mean", "variance")]
        nodes.append(helper.make_node("Conv", [source, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        norm = [f"c{layer}", *(f"{name}{layer}" for name in ("scale", "bias", "mean", "variance"))]
        nodes.append(helper.make_node("BatchNormalization", norm, [source := f"n{layer}"]))
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 384, 4, 4]) for name in ("image", source)]
    graph = helper.make_graph(nodes, "net", infos[:1], infos[1:], weights)
    file = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    assert separate_resident([file]) < 1.6 * file.stat().st_size


@pytest.mark.parametrize(("threads", "spin"), [(2, "1"), (3, "0")])
def test_separate_networks_of_the_benchmarks_wait_as_the_engine_does(
    monkeypatch: pytest.MonkeyPatch, threads: int, spin: str
) -> None:
    monkeypatch.setattr("contract.system.whole_cores", lambda: 2)
    assert network_options(threads).get_session_config_entry("session.intra_op.allow_spinning") == spin
