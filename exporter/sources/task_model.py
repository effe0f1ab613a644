"""A task model: the whole fine-tuned network of one task, as ONNX, before sharing, with what a person wants to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from contract.preprocessing import Preprocessing


@dataclass(frozen=True)
class TaskModel:
    """An ONNX model from the image (or tensor) to one vector per row.

    labels: one per entry of the output, or empty. preprocessing: how an image becomes a row, None when nobody said; for a model that takes
    float32, also the normalisation that is left to the client.
    """

    model: ir.Model
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)


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
    """

    tasks: Mapping[str, LoadTaskModel]
    backbone: LoadTaskModel | None = None
    tuned: Mapping[str, Tuned] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
