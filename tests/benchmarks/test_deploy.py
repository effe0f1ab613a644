from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.deploy.results import TaskChange, Timeline, TimelineOptions, TimelineRound, describe
from benchmarks.deploy.timeline import main
from benchmarks.harness.open_loop import Ask, OpenLoop, TimedRequest
from benchmarks.models.tiny import write_tiny_family


def request(due_s: float, latency_ms: float, status: int = 200, right: bool = True) -> TimedRequest:
    return TimedRequest(due_s, latency_ms, "probe", status, right, right)


TIMELINE = Timeline(
    TimelineOptions("late"),
    1.0,
    (
        request(0, 1),
        request(9.9, 200),  # ends in the unload
        request(10.5, 2, status=503),
        request(12, 3),  # between the changes
        request(14.1, 4, right=False),
        request(30, 5),
    ),
    (TaskChange("unload", 10, 1), TaskChange("ask", 11.5, 0, 0.6), TaskChange("load", 14, 0.2, 0.5)),
    (TimelineRound(True, 10, 11.4), TimelineRound(False, 11.4, 13), TimelineRound(True, 13, 14.6)),
)


def test_requests_are_told_apart_by_what_went_on_meanwhile() -> None:
    assert TIMELINE.deploys == (10, 14.5)
    assert TIMELINE.quiet_ms() == [1, 5]
    assert TIMELINE.rounds_ms(deploys=True) == [2, 4]
    assert TIMELINE.rounds_ms(deploys=False) == [3]
    assert TIMELINE.during_changes_ms() == [200, 2, 4]
    assert (TIMELINE.failed, TIMELINE.changed) == (1, 1)
    assert "deploys / asked only: p50 1.00, p99 1.33" in "\n".join(describe(TIMELINE))
    assert "failed 1, changed answers 1; the same to the bit 5" in "\n".join(describe(TIMELINE))


@pytest.mark.parametrize(("answer", "right"), [([1.0, 2.0], True), ([1.00001, 2.0], True), ([1.01, 2.0], False), ([1.0], False)])
def test_answers_are_right_to_what_another_batch_size_makes_of_them(answer: list[float], right: bool) -> None:
    ask = Ask("probe", b"", np.array([1, 2], "<f4").tobytes())
    assert ask.is_right(np.array(answer, "<f4").tobytes()) == right


def test_latencies_count_from_when_a_request_was_due() -> None:
    """A server that stops for a while delays all that were due meanwhile, not only the ones that it had."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            await asyncio.sleep(0.05)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def work() -> list[TimedRequest]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            load = OpenLoop(server.sockets[0].getsockname(), [Ask("probe", b"x", b"")], rate=100, connections=1)
            running = asyncio.create_task(load.run())
            while len(load.requests) < 5:
                await asyncio.sleep(0.01)
            load.stop()
            await running
            return load.requests

    requests = asyncio.run(work())
    assert [found.due_s for found in requests[:5]] == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])
    # Each is answered 50 ms after the one before, but was due only 10 ms later.
    assert all(found.latency_ms >= 50 + 40 * place for place, found in enumerate(requests))


@pytest.mark.slow
def test_a_short_timeline_is_measured_written_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = write_tiny_family(tmp_path / "repository")
    json_file, plot = tmp_path / "timeline.json", tmp_path / "timeline.png"
    options = ["--deploys", "5", "--rate", "100", "--quiet-s", "0.5", "--pause-s", "0.01", "--threads", "1"]
    plots = [f"--plot={plot}", f"--plot={plot.with_suffix('.svg')}"]
    arguments = [str(repository.path), "--task", "late", *options, "--json", str(json_file), *plots]
    monkeypatch.setattr(sys, "argv", ["deploy_timeline", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert "failed 0, changed answers 0" in said
    found = json.loads(json_file.read_text())
    assert [change["action"] for change in found["changes"]] == ["unload", "load", "ask"] * 5
    assert {asked["task"] for asked in found["requests"]} == {"probe", "early", "middle"}
    assert len(found["requests"]) >= 100
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in plot.with_suffix(".svg").read_text()
