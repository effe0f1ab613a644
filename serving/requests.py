"""Requests and responses between the protocols and the router, free of any wire format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from contract.dtypes import Array
from serving.engines.base import SegmentRun


@dataclass(frozen=True)
class RequestedOutput:
    """An output that a client asks for. `classes` k > 0: as the k best classes instead of the values."""

    name: str
    classes: int = 0


@dataclass(frozen=True)
class InferRequest:
    """Tensors for a model. No `outputs` means all of them; an empty `version` means the one there is.

    parameters: as the client sent them; the router knows `timeout` (microseconds), `priority` (1 first, 0: as if 2) and
    `partial_results` (true: outputs that fail are left out and named in the answer's errors).
    deadline: of the connection, in time.monotonic seconds; None: none.
    """

    model: str
    inputs: Mapping[str, Array]
    outputs: tuple[RequestedOutput, ...] = ()
    version: str = ""
    id: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    deadline: float | None = None


@dataclass(frozen=True)
class InferResponse:
    """The outputs in the order in which they were requested, and the segment runs that made them.

    errors: of outputs that were requested and failed, a sentence each; only when the request allowed it.
    queue_seconds: that it waited.
    """

    model: str
    version: str
    id: str
    outputs: Mapping[str, Array]
    runs: tuple[SegmentRun, ...]
    errors: Mapping[str, str] = field(default_factory=dict)
    queue_seconds: float = 0.0


def error_parameters(response: InferResponse) -> dict[str, str]:
    """Return the parameters that tell a client of outputs that failed: `error.OUTPUT`, a sentence."""
    return {f"error.{name}": sentence for name, sentence in response.errors.items()}


@dataclass(frozen=True)
class ScoredLabel:
    """One class of a task: its label (its number as text when the task has no labels) and its score (`serving.answers.classes.scores`)."""

    label: str
    score: float


@dataclass(frozen=True)
class Prediction:
    """For each task, for each image, the best classes, best first; the segment runs that it took, and the seconds that it waited.

    errors: of tasks that failed, a sentence each; only when the request allowed it. versions: of the tasks' models that answered.
    prepare_seconds: that the images took to become rows.
    """

    tasks: Mapping[str, tuple[tuple[ScoredLabel, ...], ...]]
    runs: tuple[SegmentRun, ...]
    errors: Mapping[str, str] = field(default_factory=dict)
    queue_seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    prepare_seconds: float = 0.0
