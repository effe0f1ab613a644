"""The family of nets.py as OpenVINO would run it: its segments claim to be large, and its tasks have recorded samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from contract.repository import Repository, Task, read_repository
from contract.repository.config import segment_config, task_config, to_text
from contract.repository.record import OutputRecord, ParityRecord
from contract.repository.sample import sample_rows
from contract.repository.write import model_path
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.sessions.runtime import Precision, RuntimeKind, SessionStoreOptions
from tests.serving.nets import IMAGE, LAYERS, make_task, whole, write_repository

pytest.importorskip("openvino")
OPENVINO = SessionStoreOptions(threads=1, runtime=RuntimeKind.openvino)
BF16 = replace(OPENVINO, precision=Precision.bf16)
SAMPLE = np.asarray(sample_rows(IMAGE))
LARGE = 10_000_000  # multiply-accumulates


def recorded(task: Task, values: np.ndarray) -> Task:
    """`task` with the row `values` as the recorded answer."""
    record = OutputRecord(tuple(float(value) for value in values.reshape(-1)), float(values.std()))
    return replace(task, parity=ParityRecord((record,), 0.02))


def write_task(path: Path, task: Task) -> None:
    (path / task.name / "config.pbtxt").write_text(to_text(task_config(task)))


def write_segment(path: Path, name: str, model: onnx.ModelProto | None = None) -> None:
    """Have the segment `name` claim to be large, and be `model`, if there is one."""
    segment = replace(LAYERS[name].segment(), macs=LARGE)
    (path / name / "config.pbtxt").write_text(to_text(segment_config(segment)))
    if model is not None:
        onnx.save(model, model_path(path, name))


def write_large(path: Path, *, records: bool = True) -> Repository:
    write_repository(path)
    for name in LAYERS:
        write_segment(path, name)
    if records:
        for name in ("probe", "colour", "parity", "late"):
            write_task(path, recorded(make_task(name), whole(name, SAMPLE)))
    return read_repository(path)


def engine_on(repository: Repository, sessions: SessionStoreOptions = OPENVINO) -> EmbeddedEngine:
    return EmbeddedEngine(repository, options=EngineOptions(sessions))
