"""The repository contract: configurations in both directions, and folders that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import RepositoryError
from serving.preprocessing import Preprocessing
from serving.repository import Repository, Segment, Step, Task, TensorSpec, read_repository
from serving.repository.config import parse_segment, parse_task, parse_text, segment_config, task_config, to_text
from tests.serving.nets import make_repository

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
some_names = st.lists(names, min_size=1, max_size=3).map(tuple)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
counts = st.integers(0, 2**62)
dtypes = st.sampled_from(["UINT8", "FP16", "FP32", "BF16", "INT64", "BYTES", "BOOL"])
specs = st.builds(TensorSpec, names, dtypes, st.lists(st.integers(1, 4096), max_size=4).map(tuple))
some_specs = st.lists(specs, min_size=1, max_size=3).map(tuple)
segments = st.builds(
    Segment,
    name=names,
    inputs=some_specs,
    outputs=some_specs,
    blocks=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    digest=st.binary(min_size=32, max_size=32).map(bytes.hex),
    max_batch_rows=st.integers(1, 4096),
    macs=counts,
    parameters=counts,
    weight_bytes=counts,
    activation_bytes=counts,
    modules=st.lists(texts, max_size=3).map(tuple),
    uncounted=st.lists(texts, max_size=3).map(tuple),
    version=st.integers(1, 99).map(str),
)
fractions = st.floats(0.01, 1)
preprocessings = st.builds(
    Preprocessing,
    height=st.integers(1, 1024),
    width=st.integers(1, 1024),
    mean=st.tuples(fractions, fractions, fractions),
    std=st.tuples(fractions, fractions, fractions),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    crop_fraction=fractions,
)
tasks = st.builds(
    Task,
    name=names,
    steps=st.lists(st.builds(Step, names, some_names, some_names), min_size=1, max_size=5).map(tuple),
    inputs=some_specs,
    outputs=some_specs,
    max_batch_rows=st.integers(1, 4096),
    labels=st.lists(texts, max_size=4).map(tuple),
    preprocessing=st.none() | preprocessings,
    provenance=st.dictionaries(texts, texts, max_size=3),
    version=st.integers(1, 99).map(str),
)


@settings(max_examples=40)
@given(segments)
def test_a_segment_survives_its_configuration(segment: Segment) -> None:
    assert parse_segment(parse_text(to_text(segment_config(segment)), "there"), segment.version) == segment


@settings(max_examples=40)
@given(tasks)
def test_a_task_survives_its_configuration(task: Task) -> None:
    assert parse_task(parse_text(to_text(task_config(task)), "there"), task.labels, task.version) == task


def test_reading_returns_what_was_written(repository: Repository) -> None:
    written = make_repository(repository.path)
    assert repository.segments == written.segments
    assert repository.tasks == written.tasks


def test_models_of_others_are_passed_over(broken_repository: Path) -> None:
    (broken_repository / "foreign").mkdir()
    (broken_repository / "foreign" / "config.pbtxt").write_text('name: "foreign" backend: "python"')
    (broken_repository / "notes.txt").write_text("hello")
    assert read_repository(broken_repository).tasks.keys() == make_repository().tasks.keys()


def test_labels_are_lines_and_nothing_else_ends_one(broken_repository: Path) -> None:
    (broken_repository / "probe/labels.txt").write_text("a\u2028b\n\ngrand chat\n", encoding="utf-8")
    assert read_repository(broken_repository).tasks["probe"].labels == ("a\u2028b", "", "grand chat")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "config is no config": (lambda repo: (repo / "probe/config.pbtxt").write_text("{}{"), "probe/config.pbtxt is not a Triton model"),
    "config is binary": (lambda repo: (repo / "probe/config.pbtxt").write_bytes(b"\xff\xfe\x00"), "cannot be read as UTF-8"),
    "labels are binary": (lambda repo: (repo / "probe/labels.txt").write_bytes(b"\xff\xfe\n"), "probe/labels.txt cannot be read"),
    "label missing": (lambda repo: (repo / "probe/labels.txt").write_text("cat\ndog\n"), "has 2 labels for outputs of shape \\[3\\]"),
    "name differs": (lambda repo: replace(repo / "probe/config.pbtxt", 'name: "probe"\n', 'name: "x"\n'), "must be named like its folder"),
    "no version": (lambda repo: (repo / "probe/1").rmdir(), "probe has no version folder"),
    "no model": (lambda repo: (repo / "mid/1/model.onnx").unlink(), "Segment 'mid' has no model.onnx"),
    "no segment": (lambda repo: (repo / "mid/config.pbtxt").unlink(), "'probe' needs segment 'mid', which is not in the repository"),
    "no digest": (lambda repo: replace(repo / "mid/config.pbtxt", '"digest"', '"dig"'), "segment 'mid' is incomplete or damaged"),
    "bad number": (lambda repo: replace(repo / "mid/config.pbtxt", '"49"', '"many"'), "segment 'mid' is incomplete or damaged"),
    "other shape": (lambda repo: replace(repo / "mid/config.pbtxt", "dims: 7", "dims: 8"), "gives segment 'mid' FP32 rows"),
    "no batching": (lambda repo: replace(repo / "mid/config.pbtxt", "max_batch_size: 6\n", ""), "max_batch_size 0; espalier needs"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_repository_says_what_is_wrong(broken_repository: Path, damage: str) -> None:
    action, words = DAMAGES[damage]
    action(broken_repository)
    with pytest.raises(RepositoryError, match=words):
        read_repository(broken_repository)


def test_a_chain_must_hold_together(broken_repository: Path) -> None:
    config = broken_repository / "probe/config.pbtxt"
    replace(config, 'key: "input"\n      value: "tap-trunk"', 'key: "input"\n      value: "tap-else"')
    with pytest.raises(RepositoryError, match="'probe': 'mid' reads 'tap-else', which nothing before it computes"):
        read_repository(broken_repository)


def test_one_name_for_two_computations_is_refused(broken_repository: Path) -> None:
    # Both tunings under one name: the tasks would read each other's features.
    replace(broken_repository / "parity/config.pbtxt", "tap-trunk-tuned-b", "tap-trunk-tuned-a")
    with pytest.raises(RepositoryError, match="computes tensor 'tap-trunk-tuned-a', which is something else already"):
        read_repository(broken_repository)


def test_folders_that_are_no_repository(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="is not a folder; give the folder that `espalier export --out` wrote"):
        read_repository(tmp_path / "missing")
    with pytest.raises(RepositoryError, match="holds no task of espalier"):
        read_repository(tmp_path)
