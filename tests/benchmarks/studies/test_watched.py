"""Tasks that change on disk under a server that watches, and load: a few seconds of what the command does for ten minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.studies.watched import measure

pytestmark = pytest.mark.slow


def test_no_request_fails_while_tasks_change_on_disk(tmp_path: Path) -> None:
    found = measure(3.0, 1, tmp_path)
    assert found.faults == ()
    assert found.changes >= 2
    assert found.requests > 0
    assert "faults: 0" in str(found)
