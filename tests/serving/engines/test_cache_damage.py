"""Whatever is in the files of the cache, a server starts, and says in a line what it does without."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serving.engines.cache_json import read_bounded
from serving.engines.scheduling.batch_size_profile import BatchSizeProfile
from serving.engines.sessions.file_digests import DigestRecord, FileDigests
from tests.serving.nets import LAYERS

TRUNK = LAYERS["trunk"].segment()
# What JSON can say, of the right form and of others.
NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400), st.booleans())
VALUES = st.recursive(st.one_of(st.none(), NUMBERS, st.text()), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
KEYS = st.one_of(st.text(), st.just(BatchSizeProfile(None, 1)._here))
DAMAGE = st.one_of(
    st.binary(),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(KEYS, st.dictionaries(st.text(), NUMBERS) | VALUES).map(lambda value: json.dumps(value).encode()),
    st.tuples(st.just("boot") | VALUES, VALUES, VALUES, VALUES).map(lambda value: json.dumps(value).encode()),
)
DEEP = b"[" * 200_000
many = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)


@many
@given(DAMAGE)
@example(DEEP)
@example(b'{"here": {"shape": 1e400}}')
@example(b'{"here": {"shape": ' + b"9" * 5000 + b"}}")
@example(b'{"here": {"shape": true}}')
def test_rows_are_learnt_anew_whatever_the_file_holds(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "rows.json"
    file.write_bytes(data)
    limits = BatchSizeProfile(file, threads=1)
    assert 1 <= limits.limit(TRUNK) <= TRUNK.max_batch_rows
    limits.learn(TRUNK, lambda rows: None)
    limits.save()
    assert isinstance(json.loads(file.read_bytes()), dict)


@many
@given(DAMAGE)
@example(DEEP)
@example(b'["boot", "file", [1, 1e400], "digest"]')
@example(b'["boot", "a\\u0000b", [1], "digest"]')
@example(b'["boot", "\\ud800", [1], "digest"]')
def test_files_are_hashed_whatever_the_record_holds(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    record = DigestRecord(tmp_path / "hashed.jsonl", "boot")
    record.file.write_bytes(data + b"\n")
    assert FileDigests(settled_s=0, record=record).of(file) == FileDigests().of(file)
    record._write(record.read())
    assert FileDigests(settled_s=0, record=record).of(file) == FileDigests().of(file)


def test_one_line_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rows, record = tmp_path / "rows.json", DigestRecord(tmp_path / "hashed.jsonl", "boot")
    rows.write_text("{" * 10)
    record.file.write_text("half a line\n{}\n")
    limits = BatchSizeProfile(rows, threads=1)
    limits.save()
    record.read()
    BatchSizeProfile(rows, threads=1)  # it has been written anew
    first, second = caplog.messages
    assert first.startswith(f"{rows} is damaged (")
    assert second == f"{record.file}: 2 lines are damaged, and passed over; what they were about is hashed again."


def test_a_file_that_is_far_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.engines.cache_json._MOST_BYTES", 100)
    (tmp_path / "file").write_bytes(b"x" * 101)
    with pytest.raises(ValueError, match="too long"):
        read_bounded(tmp_path / "file")
    record = DigestRecord(tmp_path / "file", "boot")
    assert record.read() == {}
    assert record.file.read_bytes() == b"x" * 101  # below what is cleaned up; nothing is lost
