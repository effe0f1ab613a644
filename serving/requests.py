"""Requests, what they say about how they want to be run, and responses: between the protocols and the router, free of any wire format."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from contract.dtypes import Array
from contract.errors import InvalidRequest
from contract.units import quoted
from serving.engines.base import SegmentRun

_NORMAL_PRIORITY = 2  # 1 goes first; what says nothing (0) is in between


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
    queue_seconds: that it waited. cached: segments that did not run, since an earlier request had left what they give.
    """

    model: str
    version: str
    id: str
    outputs: Mapping[str, Array]
    runs: tuple[SegmentRun, ...]
    errors: Mapping[str, str] = field(default_factory=dict)
    queue_seconds: float = 0.0
    cached: tuple[str, ...] = ()


def answer_parameters(response: InferResponse) -> dict[str, str]:
    """Return what few answers say besides: `error.OUTPUT`, a sentence for each that failed; `cached`, the segments that need not run."""
    found = {f"error.{name}": sentence for name, sentence in response.errors.items()}
    return found | ({"cached": ",".join(response.cached)} if response.cached else {})


@dataclass(frozen=True)
class RequestOptions:
    """How a request wants to be run: its parameters, checked.

    deadline: in time.monotonic seconds, None: none. priority: smaller goes first. partial: whether what fails may be left out.
    """

    deadline: float | None = None
    priority: int = _NORMAL_PRIORITY
    partial: bool = False


def read_options(parameters: Mapping[str, object], deadline: float | None = None, now: float | None = None) -> RequestOptions:
    """Return the options in `parameters`: `timeout` (microseconds, 0: none), `priority`, `partial_results`; others are ignored.

    deadline: of the connection; the earlier of the two counts. now: from when the timeout counts (time.monotonic; None: this moment).
    Raises InvalidRequest.
    """
    if not parameters:
        return RequestOptions(deadline)
    timeout, priority = _count(parameters, "timeout"), _count(parameters, "priority")
    partial = parameters.get("partial_results", False)
    if not isinstance(partial, bool):
        raise InvalidRequest(f"Parameter 'partial_results' is {quoted(partial)}; give true or false.")
    ends = [deadline] if deadline is not None else []
    if timeout:
        ends.append((time.monotonic() if now is None else now) + timeout / 1e6)
    return RequestOptions(min(ends, default=None), priority or _NORMAL_PRIORITY, partial)


def _count(parameters: Mapping[str, object], name: str) -> int:
    value = parameters.get(name, 0)
    # tritonclient's gRPC sends the timeout as a number and, in some versions, as its text.
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 63:
        raise InvalidRequest(f"Parameter {name!r} is {quoted(value)}; give a whole number, at least 0.")
    return number
