"""The request that is being answered, known wherever its coroutine goes: ids in log lines, segment runs in traces."""

from __future__ import annotations

import random
import re
from contextvars import ContextVar

from serving.observe.events import RequestRecord

# A context variable has to be one per process; every request's task sees its own value.
_current: ContextVar[RequestRecord | None] = ContextVar("espalier_request", default=None)
_VALID_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}", re.ASCII)


def current_request() -> RequestRecord | None:
    """Return the request that this task answers, None outside of any."""
    return _current.get()


def enter_request(record: RequestRecord) -> None:
    """Make `record` this task's request until the task ends: what is logged after the answer still bears its id."""
    _current.set(record)


def note_work(model: str, rows: int) -> None:
    """Write into the current request what it asks for; a stream's requests add up their rows."""
    record = _current.get()
    if record is not None:
        record.model = model
        record.rows += rows


def note_received(size: int) -> None:
    """Add the `size` of a message in bytes to the current request."""
    record = _current.get()
    if record is not None:
        record.received_bytes += size


def request_id(sent: str) -> str:
    """Return the id that a client `sent`, or a new one (16 hex digits) where it sent none or an unusable one.

    Usable are 1 to 128 characters of A-Z a-z 0-9 . _ : + / = @ -; others could forge log lines.
    """
    return sent if _VALID_ID.fullmatch(sent) else f"{random.getrandbits(64):016x}"  # to tell requests apart, no secret
