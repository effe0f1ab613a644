"""The measurement of a server's start, at a size that says nothing of speed."""

from __future__ import annotations

import sys

import pytest

from benchmarks.studies.server_start import main

pytestmark = pytest.mark.slow


def test_both_starts_are_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["server_start", "--tasks", "3", "--rounds", "1"])
    main()
    _, new, known = capsys.readouterr().out.splitlines()
    assert new.startswith("new    ready after ")
    assert known.startswith("known  ready after ")
    assert " 0 MB" not in known
