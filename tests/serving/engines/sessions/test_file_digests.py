"""Hashes that outlive a process: believed while a file is the same and the machine has not been started again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.engines.onnxruntime.segment_cache import SegmentCache
from serving.engines.sessions import file_digests
from serving.engines.sessions.file_digests import DigestRecord, FileDigests, current_boot
from tests.serving.engines.onnxruntime.test_segment_cache import CPU, options, wide_model

LIES = "0" * 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"content")
    return tmp_path / "file"


def record(file: Path, boot: str = "this boot") -> DigestRecord:
    return DigestRecord(file.with_name("hashed.jsonl"), boot)


def hashed(file: Path, boot: str = "this boot") -> str:
    """What a process that has just started says that the digest of `file` is."""
    return FileDigests(settled_s=0, record=record(file, boot)).of(file)


def lie(file: Path, boot: str = "this boot") -> None:
    """Put a digest in the record that is told from one that was computed."""
    hashed(file, boot)
    path = record(file, boot).file
    path.write_text(path.read_text().replace(FileDigests().of(file), LIES))


def test_the_next_process_does_not_read_the_file_again(file: Path) -> None:
    lie(file)
    assert hashed(file) == LIES


@pytest.mark.parametrize("change", ["content", "times", "replaced"])
def test_a_file_that_was_touched_is_hashed_again(file: Path, change: str) -> None:
    lie(file)
    if change == "content":
        file.write_bytes(b"CONTENT")
    elif change == "times":
        os.utime(file)
    else:
        status = file.stat()
        other = file.with_name("other")
        other.write_bytes(b"CONTENT")
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.replace(file)
    assert hashed(file) == FileDigests().of(file) != LIES


def test_what_was_hashed_before_the_machine_started_is_not_believed(file: Path) -> None:
    lie(file, "the boot before")
    assert hashed(file) != LIES


def test_where_nothing_names_the_boot_nothing_is_kept_or_believed(file: Path) -> None:
    assert hashed(file, "") != LIES
    path = record(file).file
    assert not path.exists()
    lie(file)
    path.write_text(path.read_text().replace("this boot", ""))
    assert hashed(file, "") != LIES


@pytest.mark.parametrize("line", [b"", b"half a li", b"[1, 2]", b'["this boot", "x", null, "y"]', b"\xff\xfe", b"{}"])
def test_lines_that_are_damaged_are_passed_over(file: Path, line: bytes) -> None:
    lie(file)
    path = record(file).file
    path.write_bytes(line + b"\n" + path.read_bytes() + line)
    assert hashed(file) == LIES


def test_a_record_that_cannot_be_written_is_done_without(file: Path) -> None:
    record(file).file.mkdir()
    assert hashed(file) == FileDigests().of(file)


def test_a_long_record_keeps_what_still_says_something(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digests, "_TOO_LONG_BYTES", 1000)
    gone = file.with_name("gone")
    for _ in range(10):
        record(file).add(gone, (1, 2, 3, 4, 5), "1" * 64)
        record(file, "the boot before").add(file, (1, 2, 3, 4, 5), "2" * 64)
    lie(file)
    assert hashed(file) == LIES
    (line,) = record(file).file.read_text().splitlines()
    assert LIES in line


def test_processes_add_to_one_record(file: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from serving.engines.sessions.file_digests import DigestRecord\n"
        "for n in range(300): DigestRecord(Path(sys.argv[1]), 'b').add(Path(f'{sys.argv[2]}-{n}'), (n,), 'd' * 64)"
    )
    path = file.with_name("hashed.jsonl")
    running = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in ("one", "two")]
    assert [process.wait(timeout=30) for process in running] == [0, 0]
    assert len(DigestRecord(path, "b").read()) == 600


@pytest.mark.skipif(not current_boot(), reason="nothing names the boot here")
@pytest.mark.parametrize("records", [True, False])
def test_a_cache_records_hashes_unless_told_not_to(tmp_path: Path, records: bool) -> None:
    model = wide_model(tmp_path / "repo/wide/1/model.onnx")

    def open_as_a_new_process() -> bool:
        cache = SegmentCache(tmp_path / "cache", CPU, min_bytes=0, record_hashes=records)
        cache._digests._settled_ns = 0
        return cache.open(model, options) is not None

    assert open_as_a_new_process()
    path = tmp_path / "cache/hashed.jsonl"
    assert path.exists() == records
    if records:
        assert path.stat().st_mode & 0o777 == 0o600
        lines = path.read_text()
        assert str(model) in lines
        path.write_text(lines.replace(FileDigests().of(model), LIES))
        assert not open_as_a_new_process()  # it was believed; and what is another file after all does not come into the cache
        path.unlink()
    assert open_as_a_new_process()


@pytest.mark.skipif(not current_boot(), reason="nothing names the boot here")
def test_the_record_is_no_entry_to_be_pruned(tmp_path: Path) -> None:
    first, second = (wide_model(tmp_path / f"repo/{seed}/1/model.onnx", seed) for seed in range(2))
    SegmentCache(tmp_path / "cache", CPU, min_bytes=0).open(first, options)
    path = tmp_path / "cache/hashed.jsonl"
    path.write_text("")
    os.utime(path, (0, 0))  # used least recently of all
    size = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*"))
    SegmentCache(tmp_path / "cache", CPU, size, min_bytes=0).open(second, options)
    assert sum(entry.is_dir() for entry in (tmp_path / "cache").iterdir()) == 1  # one had to go
    assert path.exists()
