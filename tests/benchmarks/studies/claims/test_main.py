from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.studies.claims.__main__ import LEDGERS, main
from benchmarks.studies.claims.ledgers import Ledgers
from benchmarks.studies.claims.plan import make_plan
from benchmarks.studies.claims.tables.document import make_document
from benchmarks.studies.claims.tables.source import Source
from benchmarks.studies.claims.unit import Entry, Settings, Unit


def test_the_plan_is_printed_and_nothing_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledgers = tmp_path / "ledgers"
    Ledgers(ledgers, Settings()).add(Entry(Unit("costs"), {"blocks": [], "shares": [], "head": 0.0}, 7200.0, 1.0, busy=False))
    assert main(["--plan", "--ledgers", str(ledgers), "--cores", "2"]) == 0
    shown = capsys.readouterr().out
    assert "| costs | 1 | 1 | 2.00 | 0.00 | 0.00 | 0.00 |" in shown
    assert "hours of 2 cores to go, summed up" in shown
    assert [path.name for path in ledgers.glob("*.json")] == ["costs.json"]


def test_a_process_is_started_for_each_core_and_the_worst_status_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script stands for Python: it writes down its arguments, and part 1 fails."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/$$.txt\ncase "$*" in *"--part 1") exit 1;; esac\n', encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    options = ["--out", str(tmp_path / "out"), "--ledgers", str(tmp_path / "ledgers"), "--budget-hours", "2", "--cores", "2"]
    assert main(options) == 1
    told = sorted(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.txt"))
    assert told == [f"-m benchmarks.studies.claims {' '.join(options)} --part {part}\n" for part in (0, 1)]
    assert (tmp_path / "out" / "claims.md").is_file()  # once all have ended


def test_tables_of_nothing_say_that_nothing_was_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["--tables", "--out", str(out), "--ledgers", str(tmp_path / "ledgers")]) == 0
    document = (out / "claims.md").read_text(encoding="utf-8")
    assert document.count("Not run yet.") >= 10
    assert f"0 of {len(make_plan(Settings()))} units" in document
    assert "- method: category, surgical, 100 images, seed 0" in document
    assert str(out / "claims.md") in capsys.readouterr().out


def test_what_is_missing_or_unknown_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledgers = ["--ledgers", str(tmp_path / "ledgers")]
    assert main(ledgers) == 2
    assert "Give --out FOLDER" in capsys.readouterr().err
    assert main([*ledgers, "--out", str(tmp_path), "--only", "luck"]) == 2
    assert "Nothing in the plan is called 'luck'; there are sections (costs, profiles, methods," in capsys.readouterr().err
    (tmp_path / "ledgers").mkdir(exist_ok=True)
    (tmp_path / "ledgers" / "costs.json").write_text("[]", encoding="utf-8")
    assert main([*ledgers, "--plan"]) == 1
    assert "costs.json is no ledger of this study, or damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_tables_are_made_without_torch(tmp_path: Path) -> None:
    code = "import sys; from benchmarks.studies.claims.__main__ import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "--tables", "--out", str(tmp_path), "--ledgers", str(tmp_path / "ledgers")]
    assert subprocess.run(command, capture_output=True, timeout=300, check=False).returncode == 0


def test_the_ledgers_that_are_kept_can_be_read_and_belong_to_the_plan() -> None:
    settings = Settings()
    entries = Ledgers(LEDGERS, settings).read()
    plan = {one.unit for one in make_plan(settings)}
    for key, entry in entries.items():
        assert entry.unit.key(settings) == key
        assert entry.unit in plan
    make_document(Source(entries.values(), settings), make_plan(settings), 2)
