"""Configurations as files that a person has read: a change of what Triton gets to see shows up as a diff."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.errors import RepositoryError
from contract.preprocessing import Preprocessing
from contract.repository import Segment, Step, Task, TensorSpec
from contract.repository.config import (
    all_tasks_config,
    parse_digest_version,
    parse_segment,
    parse_task,
    parse_text,
    segment_config,
    task_config,
    to_text,
)
from contract.repository.record import OutputRecord, ParityRecord

GOLDEN = Path(__file__).parents[2] / "golden"
IMAGE = TensorSpec("image", "UINT8", (64, 64, 3))
SEGMENT = Segment(
    name="trunk-00-02-1211f4c5",
    inputs=(TensorSpec("input", "UINT8", (64, 64, 3)),),
    outputs=(TensorSpec("output", "FP32", (24, 16, 16)),),
    blocks=(0, 2),
    digest="1211f4c5" * 8,
    max_batch_rows=64,
    macs=17_500_000,
    parameters=40_000,
    weight_bytes=160_000,
    activation_bytes=24_576,
    modules=("normalise", "conv1", "layer1.0", "layer1.1"),
    uncounted=("Add", "Relu"),
)
TASK = Task(
    name="parity",
    steps=(
        Step(SEGMENT.name, ("image",), ("tap-0123456789abcdef",)),
        Step("parity-03-09-9e4d11ee", ("tap-0123456789abcdef",), ("parity",)),
    ),
    inputs=(IMAGE,),
    outputs=(TensorSpec("parity", "FP32", (2,)),),
    max_batch_rows=64,
    labels=("even", "odd"),
    preprocessing=Preprocessing(64, 64),
    provenance={"backbone": "resnet18", "seed": "0"},
    parity=ParityRecord((OutputRecord((-0.75336, 1.2501), 0.877),), 0.02),
    scores="logits",
)


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("segment.config.pbtxt", segment_config(SEGMENT)),
        ("task.config.pbtxt", task_config(TASK)),
        ("all_tasks.config.pbtxt", all_tasks_config([TASK])),
    ],
)
def test_configurations_are_written_as_recorded(file: str, config: Any) -> None:
    assert to_text(config) == (GOLDEN / file).read_text()


def test_recorded_configurations_are_read_back() -> None:
    segment = parse_text((GOLDEN / "segment.config.pbtxt").read_text(), "segment")
    task = parse_text((GOLDEN / "task.config.pbtxt").read_text(), "task")
    assert parse_segment(segment, "1") == SEGMENT
    assert parse_task(task, TASK.labels, "1") == TASK


def test_the_first_version_of_digests_has_no_number_and_others_are_read_back() -> None:
    later, ensemble = segment_config(replace(SEGMENT, digest_version=3)), all_tasks_config([TASK], digest_version=3)
    assert [config.parameters["digest_version"].string_value for config in (later, ensemble)] == ["3", "3"]
    assert (parse_segment(later, "1").digest_version, parse_digest_version(ensemble)) == (3, 3)
    assert "digest_version" not in all_tasks_config([TASK]).parameters
    ensemble.parameters["digest_version"].string_value = "0"
    with pytest.raises(RepositoryError, match="the digests are of version 0"):
        parse_digest_version(ensemble)
