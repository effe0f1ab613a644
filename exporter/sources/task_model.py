"""A task model: the whole fine-tuned network of one task, as ONNX, before sharing, with what a person wants to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from contract.kinds.kind import Kind
from contract.preprocessing import Preprocessing
from contract.references import model_name
from contract.repository.origin import Origin
from exporter.errors import BadModel
from exporter.sources.tokenizer import TokenizerSource

_LABELS_SUFFIX = ".labels.txt"


@dataclass(frozen=True)
class TaskModel:
    """An ONNX model from the image (or tensor) to one vector per row.

    labels: one per entry of the output, or empty. preprocessing: how an image becomes a row, None when nobody said; for a model that takes
    float32, also the normalisation that is left to the client. refuses_images: what the file says of that cannot be followed.
    file: where `model` lies as it was given, None when it lies nowhere.
    remark: what to know of it, in a sentence that goes on after its name, or "". tokenizer: of a task that
    takes texts; None: the client has it. kind: how people read what it answers; None: nobody said.
    """

    model: ir.Model
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    remark: str = ""
    tokenizer: TokenizerSource | None = None
    kind: Kind | None = None
    refuses_images: bool = False


@dataclass(frozen=True)
class Tuned:
    """What a task checkpoint says of the backbone that it was tuned on: the hash of its weights, and what became of the images."""

    backbone_sha256: str
    preprocessing: Preprocessing


LoadTaskModel = Callable[[], TaskModel]


@dataclass(frozen=True)
class Sources:
    """Functions that load the task models, one at a time, so that memory holds one of them and not all.

    tuned: of those that are task checkpoints, what they were tuned on. remarks: what was assumed on opening them, in sentences.
    inputs: per task, what some of its network's inputs are to be called; the others are matched (`exporter.sources.inputs`).
    origin: what was said of them, to be remembered.
    """

    tasks: Mapping[str, LoadTaskModel]
    backbone: LoadTaskModel | None = None
    tuned: Mapping[str, Tuned] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)


def read_labels(task: str, model: Path) -> tuple[str, ...]:
    """Return the labels in TASK.labels.txt or MODEL.labels.txt beside `model` (without its own suffix), () when there is neither.

    One label a line, UTF-8; what follows the last one may be blank. Raises BadModel for a file that is not that.
    """
    for name in (task, model_name(model)):
        path = model.parent / f"{name}{_LABELS_SUFFIX}"
        if path.is_file():
            return _read_lines(path)
    return ()


def _read_lines(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except OSError as error:
        raise BadModel(path, f"cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadModel(path, "is not text in UTF-8; write one label a line.") from error
    labels = tuple(line.strip() for line in lines)
    if not labels:
        raise BadModel(path, "the file is empty; write one label a line.")
    if not all(labels):
        raise BadModel(path, f"line {labels.index('') + 1} is blank; write one label a line.")
    return labels
