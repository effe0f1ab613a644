"""The repository contract: configurations in both directions, and folders that are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import ModelInput

from contract.errors import RepositoryError
from contract.kinds.kind import Scores
from contract.preprocessing import Preprocessing
from contract.repository import Canary, Repository, Segment, Step, Task, TensorSpec, read_repository
from contract.repository.check import check_repository
from contract.repository.config import (
    all_tasks_config,
    kept_config,
    parse_canary,
    parse_kept,
    parse_segment,
    parse_task,
    parse_text,
    segment_config,
    task_config,
    to_text,
)
from tests.serving.nets import make_repository, make_task

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
some_names = st.lists(names, min_size=1, max_size=3).map(tuple)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
counts = st.integers(0, 2**62)
dtypes = st.sampled_from(["UINT8", "FP16", "FP32", "BF16", "INT64", "BYTES", "BOOL"])
specs = st.builds(
    TensorSpec, names, dtypes, st.lists(st.integers(1, 4096), max_size=4).map(tuple), st.sampled_from(["", "NHWC", "NCHW"])
)
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
    last_version=st.integers(0, 99),
    scores=st.sampled_from(get_args(Scores)),
)
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)


@pytest.mark.slow
@settings(max_examples=40)
@given(segments)
def test_a_segment_survives_its_configuration(segment: Segment) -> None:
    found = parse_segment(parse_text(to_text(segment_config(segment)), "there"), segment.version)
    assert found == segment
    assert [spec.layout for spec in found.inputs] == [spec.layout for spec in segment.inputs]


@pytest.mark.slow
@settings(max_examples=40)
@given(tasks)
def test_a_task_survives_its_configuration(task: Task) -> None:
    found = parse_task(parse_text(to_text(task_config(task)), "there"), task.labels, task.version)
    assert found == task
    assert found.input_layouts() == task.input_layouts()


@pytest.mark.slow
@settings(max_examples=40)
@given(tasks, shares)
def test_a_version_that_is_kept_survives_its_configuration(task: Task, share: float) -> None:
    assert parse_kept(parse_text(to_text(kept_config(task)), "there"), task.labels) == task
    canary = Canary(task, share)
    assert parse_canary(parse_text(to_text(kept_config(canary)), "there"), task.labels) == canary


@pytest.mark.parametrize(
    ("shape", "how", "layout"),
    [
        ((8, 6, 3), Preprocessing(8, 6), "FORMAT_NHWC"),
        ((3, 8, 6), Preprocessing(8, 6), "FORMAT_NCHW"),  # what is exported with --preprocess none
        ((8, 8, 3), Preprocessing(8, 6), "FORMAT_NONE"),
        ((8, 6, 3), None, "FORMAT_NONE"),
        ((3,), Preprocessing(8, 6), "FORMAT_NONE"),
    ],
)
def test_image_clients_are_told_how_images_lie_in_an_input(
    shape: tuple[int, ...], how: Preprocessing | None, layout: str
) -> None:
    task = replace(make_task("probe", how), inputs=(TensorSpec("image", "UINT8", shape), TensorSpec("size", "FP32", (2,))))
    bare = replace(task, name="a", preprocessing=None)  # first by name, but another knows
    for config in (task_config(task), kept_config(task), all_tasks_config([task, bare])):
        assert [tensor.format for tensor in config.input] == [ModelInput.Format.Value(layout), ModelInput.FORMAT_NONE]


def test_a_format_that_somebody_wrote_is_kept() -> None:
    bare = make_task("probe", None)
    config = task_config(bare)
    config.input[0].format = ModelInput.FORMAT_NHWC
    found = parse_task(parse_text(to_text(config), "there"), bare.labels, "1")
    assert all_tasks_config([found]).input == task_config(replace(found, name="other")).input == config.input


@pytest.mark.parametrize("share", [0, 1, -0.5, 5, float("nan")])
def test_a_canary_answers_some_of_the_requests_and_not_all(share: float) -> None:
    with pytest.raises(ValueError, match=r"share is .*more than 0 and less than 1"):
        Canary(make_task("probe"), share)


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


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "config is no config": (lambda repo: (repo / "probe/config.pbtxt").write_text("{}{"), "probe/config.pbtxt is not a Triton model"),
    "config is binary": (lambda repo: (repo / "probe/config.pbtxt").write_bytes(b"\xff\xfe\x00"), "cannot be read as UTF-8"),
    "labels are binary": (lambda repo: (repo / "probe/labels.txt").write_bytes(b"\xff\xfe\n"), "probe/labels.txt cannot be read"),
    "label missing": (lambda repo: (repo / "probe/labels.txt").write_text("cat\ndog\n"), "has 2 labels for outputs of shape \\[3\\]"),
    "name differs": (lambda repo: edit(repo / "probe/config.pbtxt", 'name: "probe"\n', 'name: "x"\n'), "must be named like its folder"),
    "no version": (lambda repo: (repo / "probe/1").rmdir(), "probe has no version folder"),
    "no model": (lambda repo: (repo / "mid/1/model.onnx").unlink(), "Segment 'mid' has no model.onnx"),
    "no segment": (lambda repo: (repo / "mid/config.pbtxt").unlink(), "'probe' needs segment 'mid', which is not in the repository"),
    "no digest": (lambda repo: edit(repo / "mid/config.pbtxt", '"digest"', '"dig"'), "segment 'mid' is incomplete or damaged"),
    "other scores": (lambda repo: edit(repo / "probe/config.pbtxt", '"logits"', '"odds"'), "damaged \\(scores are 'odds'\\)"),
    "bad number": (lambda repo: edit(repo / "mid/config.pbtxt", '"49"', '"many"'), "segment 'mid' is incomplete or damaged"),
    "other shape": (lambda repo: edit(repo / "mid/config.pbtxt", "dims: 7", "dims: 8"), "gives segment 'mid' FP32 rows"),
    "no batching": (lambda repo: edit(repo / "mid/config.pbtxt", "max_batch_size: 6\n", ""), "max_batch_size 0; espalier needs"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_repository_says_what_is_wrong(broken_repository: Path, damage: str) -> None:
    action, words = DAMAGES[damage]
    action(broken_repository)
    with pytest.raises(RepositoryError, match=words):
        read_repository(broken_repository)


def test_a_chain_must_hold_together(broken_repository: Path) -> None:
    config = broken_repository / "probe/config.pbtxt"
    edit(config, 'key: "input"\n      value: "tap-trunk"', 'key: "input"\n      value: "tap-else"')
    with pytest.raises(RepositoryError, match="'probe': 'mid' reads 'tap-else', which nothing before it computes"):
        read_repository(broken_repository)


def test_one_name_for_two_computations_is_refused(broken_repository: Path) -> None:
    # Both tunings under one name: the tasks would read each other's features.
    edit(broken_repository / "parity/config.pbtxt", "tap-trunk-tuned-b", "tap-trunk-tuned-a")
    with pytest.raises(RepositoryError, match="computes tensor 'tap-trunk-tuned-a', which is something else already"):
        read_repository(broken_repository)


def test_folders_that_are_no_repository(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="is not a folder; give the folder that `espalier export` wrote"):
        read_repository(tmp_path / "missing")
    with pytest.raises(RepositoryError, match="holds no task of espalier"):
        read_repository(tmp_path)


def other(task: Task, version: str, **changes: object) -> Task:
    """`task` with a head of its own: the network of tuned-a under the name of the task."""
    heads = make_task("colour").steps[1:]
    steps = (task.steps[0], *heads[:-1], replace(heads[-1], outputs=(task.name,)))
    return replace(task, steps=steps, version=version, **changes)  # type: ignore[arg-type]


def keep(repo: Path, folder: str, kept: Task | Canary) -> Path:
    """Write `kept` as a version of the task probe; return its configuration."""
    task = kept.task if isinstance(kept, Canary) else kept
    (repo / "probe" / folder).mkdir()
    (repo / "probe" / folder / "config.pbtxt").write_text(to_text(kept_config(kept)))
    if task.labels:
        (repo / "probe" / folder / "labels.txt").write_text("\n".join(task.labels))
    return repo / "probe" / folder / "config.pbtxt"


PROBE = make_task("probe")
PREVIOUS = replace(PROBE, version="7")
CANARY = Canary(other(PROBE, "9", labels=("x", "y", "z"), provenance={"file": "new.onnx"}), 0.05)


def test_versions_that_are_kept_are_read_beside_the_current_one(broken_repository: Path) -> None:
    keep(broken_repository, "previous", PREVIOUS)
    keep(broken_repository, "canary", CANARY)
    (broken_repository / "probe/notes").mkdir()
    read = read_repository(broken_repository)
    assert read.tasks["probe"] == replace(PROBE, previous=PREVIOUS, canary=CANARY)
    assert read.tasks["probe"].versions == (read.tasks["probe"], PREVIOUS, CANARY.task)
    assert read.tasks["late"] == make_task("late")


def test_a_version_keeps_no_versions_itself(broken_repository: Path) -> None:
    keep(broken_repository, "previous", PREVIOUS)
    keep(broken_repository, "previous/previous", replace(PROBE, version="6"))
    previous = read_repository(broken_repository).tasks["probe"].previous
    assert previous == PREVIOUS
    nested = replace(PROBE, previous=replace(PREVIOUS, previous=replace(PROBE, version="6")))
    with pytest.raises(RepositoryError, match="'probe' keeps a version that keeps one itself"):
        check_repository(replace(make_repository(broken_repository), tasks={"probe": nested}))


KEPT_DAMAGES: dict[str, tuple[str, Task | Canary, tuple[str, str], str]] = {
    "no config": ("previous", PREVIOUS, ('name: "probe"\n', "{}{"), "probe/previous/config.pbtxt is not a Triton model"),
    "name": ("previous", PREVIOUS, ('name: "probe"\n', 'name: "x"\n'), "probe/previous/config.pbtxt is named 'x'; .* its task"),
    "no version": ("previous", PREVIOUS, ('"version"', '"ver"'), "task 'probe' is incomplete or damaged"),
    "bad version": ("previous", PREVIOUS, ('"7"', '"seven"'), "task 'probe' is incomplete or damaged"),
    "version 0": ("previous", PREVIOUS, ('"7"', '"0"'), "versions numbered 1 and 0; each must have a number of its own, 1 or more"),
    "same version": ("canary", CANARY, ('"9"', '"1"'), "versions numbered 1 and 1"),
    "no share": ("canary", CANARY, ('"share"', '"part"'), "task 'probe' is incomplete or damaged"),
    "all of it": ("canary", CANARY, ('"0.05"', '"1.0"'), "share is 1.0; it must be .* less than 1"),
    "no segment": ("canary", CANARY, ('"tuned-a"', '"tuned-z"'), "'probe' needs segment 'tuned-z', which is not in the repository"),
    "wiring": ("canary", CANARY, ('value: "tap-trunk-tuned-a-suffix"', 'value: "tap-x"'), "'head-colour' reads 'tap-.*', which nothing"),
    "other input": ("canary", CANARY, ("dims: 3\n}\noutput", "dims: 4\n}\noutput"), "takes or gives other tensors"),
    "other rows": ("canary", CANARY, ("max_batch_size: 6\n", ""), "max_batch_size 0; espalier needs"),
}  # fmt: skip


@pytest.mark.parametrize("damage", KEPT_DAMAGES)
def test_a_damaged_version_says_what_is_wrong(broken_repository: Path, damage: str) -> None:
    folder, kept, (old, new), words = KEPT_DAMAGES[damage]
    config = keep(broken_repository, folder, kept)
    read_repository(broken_repository)
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new, 1))
    with pytest.raises(RepositoryError, match=words):
        read_repository(broken_repository)


def test_a_canary_answers_as_clients_were_told(broken_repository: Path) -> None:
    late = make_task("late")
    steps = (*late.steps[:-1], replace(late.steps[-1], outputs=("probe",)))
    output = TensorSpec("probe", "FP32", (4,))
    keep(broken_repository, "canary", Canary(replace(PROBE, steps=steps, outputs=(output,), labels=(), version="2"), 0.5))
    with pytest.raises(RepositoryError, match="canary of task 'probe' takes or gives other tensors than the current version"):
        read_repository(broken_repository)


def test_a_version_must_not_give_the_name_of_a_tensor_to_another_computation(broken_repository: Path) -> None:
    config = keep(broken_repository, "canary", CANARY)
    edit(config, "tap-trunk-tuned-a", "tap-trunk-mid")
    with pytest.raises(RepositoryError, match="computes tensor 'tap-trunk-mid', which is something else already"):
        read_repository(broken_repository)
