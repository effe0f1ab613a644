"""What a request costs on each wire: all servers are asked, and what is printed and written is there."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.harness.processor_time import processor_s
from benchmarks.studies.wire_costs.measure import main


def test_the_processor_time_of_processes_adds_up_and_what_is_gone_counts_for_nothing() -> None:
    before = processor_s([os.getpid()])
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert 0.03 <= processor_s([os.getpid(), 2**30]) - before < 5


@pytest.mark.slow
def test_every_server_is_measured_with_one_client_and_with_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "costs.json"
    monkeypatch.setattr(sys, "argv", ["wire_costs", "--clients", "2", "--seconds", "0.1", "--turns", "1", "--json", str(file)])
    main()
    costs = json.loads(file.read_text())["costs"]
    assert len(costs) == 10
    assert {cost["clients"] for cost in costs} == {1, 2}
    assert all(cost["per_s"][0] > 0 for cost in costs)
    said = capsys.readouterr().out
    assert all(f"{who}, {wire}" in said for who in ("empty", "espalier") for wire in ("HTTP", "gRPC"))
    assert "ONNX Runtime, all segments" in said
