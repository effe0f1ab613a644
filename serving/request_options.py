"""What a request says about how it wants to be run: its parameters, checked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from contract.errors import InvalidRequest
from contract.units import quoted

_NORMAL_PRIORITY = 2  # 1 goes first; what says nothing (0) is in between


@dataclass(frozen=True)
class RequestOptions:
    """deadline: in time.monotonic seconds, None: none. priority: smaller goes first. partial: whether what fails may be left out."""

    deadline: float | None = None
    priority: int = _NORMAL_PRIORITY
    partial: bool = False


def read_options(parameters: Mapping[str, object], deadline: float | None = None, now: float | None = None) -> RequestOptions:
    """Return the options in `parameters`: `timeout` (microseconds, 0: none), `priority`, `partial_results`; others are ignored.

    deadline: of the connection; the earlier of the two counts. now: from when the timeout counts (time.monotonic; None: this moment).
    Raises InvalidRequest.
    """
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
