"""What a model repository says, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.preprocessing import Preprocessing

SEGMENT_INPUT = "input"
SEGMENT_OUTPUT = "output"


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model: `dtype` in the v2 protocol's words ("UINT8", "FP32"), `shape` without the batch axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Segment:
    """A run of consecutive blocks, exported as one ONNX model that is named by its content and never changes.

    blocks: first and last block of the network, counted from 0, both included.
    modules: the modules of the network that it computes, as far as the exporter knows their names.
    digest: SHA-256 (hex) of what the segment computes.
    macs: multiply-accumulates for one row; GFLOPs = 2 x GMACs. uncounted: operator types that `macs` leaves out.
    parameters: number of weights; weight_bytes: their size. activation_bytes: size of the output tensor for one row.
    """

    name: str
    input: TensorSpec
    output: TensorSpec
    blocks: tuple[int, int]
    digest: str
    max_batch_rows: int
    macs: int = 0
    parameters: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0
    modules: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    version: str = "1"


@dataclass(frozen=True)
class Step:
    """One segment applied to one tensor. Tensors are named by how they are computed: equal name, equal value."""

    segment: str
    input: str
    output: str


@dataclass(frozen=True)
class Task:
    """What a client asks for: the chain of steps from the input to one output that is named like the task.

    input: the tensor that the client sends, one row an image. preprocessing: how an image becomes a row (None: no image task).
    labels: one per entry of the output vector, or empty. provenance: where the weights come from, for people.
    """

    name: str
    steps: tuple[Step, ...]
    input: TensorSpec
    output: TensorSpec
    max_batch_rows: int
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    version: str = "1"


@dataclass(frozen=True)
class Repository:
    """Segments and tasks, each by name. `path` holds `<segment>/<version>/model.onnx`."""

    path: Path
    segments: Mapping[str, Segment]
    tasks: Mapping[str, Task]

    def model_file(self, segment: str) -> Path:
        """Return the path of the ONNX model of `segment`."""
        return self.path / segment / self.segments[segment].version / "model.onnx"
