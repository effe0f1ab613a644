"""How perf_analyzer is had, and what becomes of its reports; tests/serving/protocol/test_client_suite.py runs the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.studies.perf_analyzer.program import PerfAnalyzer, PerfAnalyzerFailed, PerfAnalyzerUnavailable, fetch
from benchmarks.studies.perf_analyzer.sweep import WAYS, models_of, sweep, table
from contract.repository import ALL_TASKS
from tests.serving.nets import make_repository

PRINTS_REPORT = """#!/bin/sh
while [ $# -gt 1 ]; do [ "$1" = -f ] && report=$2; [ "$1" = -m ] && model=$2; shift; done
[ "$model" = trunk ] && echo "Server side statistics compute counts must be the same." && exit 1
echo "Concurrency,Inferences/Second,p50 latency
2,1500.4,1250
1,900,1000" > "$report"
"""


@pytest.mark.slow
def test_without_packages_it_says_so_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "none"))
    with pytest.raises(PerfAnalyzerUnavailable, match=r"cannot be had here: pip failed \(.*(tritonclient|nvidia-cuda-runtime)"):
        fetch(tmp_path / "there")
    assert not [*(tmp_path / "there").iterdir()]


def program(folder: Path, script: str) -> PerfAnalyzer:
    file = folder / "bin" / "perf_analyzer"
    file.parent.mkdir()
    file.write_text(script)
    file.chmod(0o755)
    return PerfAnalyzer(folder)


def test_a_run_that_ends_early_says_why(tmp_path: Path) -> None:
    with pytest.raises(PerfAnalyzerFailed, match=r"^perf_analyzer failed: no such model\.$"):
        program(tmp_path, "#!/bin/sh\necho first\necho no such model. >&2\nexit 99\n").run()


def test_each_way_to_ask_is_a_row_also_one_that_fails(tmp_path: Path) -> None:
    models = models_of(make_repository())
    assert models == ["colour", ALL_TASKS, "trunk"]
    rows = [*sweep(program(tmp_path, PRINTS_REPORT), "h:1", "g:2", models)]
    assert [(row.model, row.way) for row in rows] == [(model, way) for model in models for way in WAYS]
    assert (rows[0].per_second, rows[0].p50_ms) == ({1: 900, 2: 1500.4}, {1: 1.0, 2: 1.25})
    lines = table(rows).splitlines()
    assert lines[2] == "| colour | HTTP | 900 / 1500 | 1.0 / 1.2 |"
    assert lines[-1].startswith(
        "| trunk | gRPC, streaming, shared memory | perf_analyzer failed: Server side statistics compute counts"
    )
    assert {line.count(" |") for line in lines[2:]} == {4}
