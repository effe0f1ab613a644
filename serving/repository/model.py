"""What a model repository says, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from serving.preprocessing import Preprocessing
from serving.repository.record import ParityRecord

SEGMENT_INPUT = "input"
SEGMENT_OUTPUT = "output"
# Whether a row's answer depends on the other rows of its batch: no, yes, or nobody has checked.
Rows = Literal["independent", "coupled", ""]

DEFAULT_CUT_RULE = "cheap"  # what a repository that does not say it was cut by


def segment_tensor(kind: str, index: int) -> str:
    """Return the name of a segment's tensor number `index`, `kind` being SEGMENT_INPUT or SEGMENT_OUTPUT: input, input_1, ..."""
    return f"{kind}_{index}" if index else kind


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model: `dtype` in the v2 protocol's words ("UINT8", "FP32"), `shape` without the batch axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Segment:
    """A run of consecutive blocks, exported as one ONNX model that is named by its content and never changes.

    inputs: the tap that the blocks before it leave, and whatever else it takes (an input of the network, another tap).
    outputs: the tap that it leaves; several only where a network ends in several outputs that cannot be told apart.
    blocks: first and last block of the network, counted from 0, both included.
    modules: the modules of the network that it computes, as far as the exporter knows their names.
    digest: SHA-256 (hex) of what the segment computes.
    macs: multiply-accumulates for one row; GFLOPs = 2 x GMACs. uncounted: operator types that `macs` leaves out.
    parameters: number of weights; weight_bytes: their size. activation_bytes: size of the output tensors for one row.
    reason: why the network is cut in front of it, a sentence for people; empty at the input.
    rows: "independent"; "coupled", where one request must be one run, none of its rows apart and no stranger's row beside them; or "",
        where nobody has checked.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    blocks: tuple[int, int]
    digest: str
    max_batch_rows: int
    macs: int = 0
    parameters: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0
    modules: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    reason: str = ""
    rows: Rows = ""
    version: str = "1"


@dataclass(frozen=True)
class Step:
    """One segment applied to tensors, given in the order of its inputs and outputs.

    Tensors are named by how they are computed: equal name, equal value.
    """

    segment: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """What a client asks for: the steps from the inputs to the outputs, each step after those whose results it takes.

    inputs: the tensors that the client sends, most often one, with a row per image. outputs: one that is named like the task, or
    several that are named `task.output`. preprocessing: how an image becomes a row (None: no image task).
    labels: one per entry of the only output, a vector, or empty. provenance: where the weights come from, for people.
    previous: the version before this one, kept for a rollback. canary: one that is tried beside it. Neither keeps any in turn.
    last_version: the highest version number that the task ever had, where that is higher than those it has now; otherwise 0.
    parity: what the whole network answered when it was exported; None: nobody recorded it.
    """

    name: str
    steps: tuple[Step, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_rows: int
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    version: str = "1"
    previous: Task | None = None
    canary: Canary | None = None
    last_version: int = 0
    parity: ParityRecord | None = None

    @property
    def versions(self) -> tuple[Task, ...]:
        """Return the task as it is now, and then the versions that are kept beside it."""
        canary = None if self.canary is None else self.canary.task
        return tuple(task for task in (self, self.previous, canary) if task is not None)


@dataclass(frozen=True)
class Canary:
    """A version of a task that answers a `share` of its requests, more than 0 and less than 1. Raises ValueError for others."""

    task: Task
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"a canary's share is {self.share}; it must be more than 0 and less than 1")


@dataclass(frozen=True)
class Repository:
    """Segments and tasks, each by name. `path` holds `<segment>/<version>/model.onnx`.

    cuts_left_out: places where tasks part or meet without a cut there, with the reason, a sentence each for people.
    cut_rule: by what rule of the exporter it was cut, and is cut anew.
    copies: models that only copy a tensor, which `all_tasks` needs on Triton where tasks have equal outputs.
    """

    path: Path
    segments: Mapping[str, Segment]
    tasks: Mapping[str, Task]
    cuts_left_out: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    cut_rule: str = DEFAULT_CUT_RULE

    def model_file(self, segment: str) -> Path:
        """Return the path of the ONNX model of `segment`."""
        return self.path / segment / self.segments[segment].version / "model.onnx"
