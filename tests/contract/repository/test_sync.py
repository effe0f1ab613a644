"""What is written is asked to be on disk, entry by entry or many at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contract.repository.transaction import file_system


@pytest.mark.parametrize("count", [3, file_system._MANY + 50])
def test_every_file_and_folder_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    for index in range(count):
        folder = tmp_path / f"folder-{index % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"{index}").write_text("text")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    file_system.sync_tree(tmp_path)
    assert sorted(synced) == sorted(path.stat().st_ino for path in (tmp_path, *tmp_path.rglob("*")))


@pytest.mark.parametrize("count", [3, file_system._MANY + 50])
def test_a_disk_that_refuses_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    for index in range(count):
        (tmp_path / f"{index}").write_text("text")
    refused = (tmp_path / "2").stat().st_ino

    def fsync(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == refused:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        file_system.sync_tree(tmp_path)
