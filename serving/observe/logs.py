"""Log lines for people or for machines, each with the id of the request that it is about."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from serving.observe.events import NullObserver, RequestRecord, current_request

# Control characters would let text from outside break or repaint a line.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}

_EVERY_S = 10.0
_MOST_KINDS = 1000
_access = logging.getLogger("serving.access")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, request_id, what the record brings as `fields`, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": _request_id(record),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in line.items() if value not in ("", None)}, ensure_ascii=False, default=str)


class _ConsoleFormatter(logging.Formatter):
    """Time of day, level, message, request id; a traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        found = _request_id(record)
        suffix = f" id={found}" if found else ""
        line = f"{time} {record.levelname:<7} {record.getMessage().translate(_ESCAPES)}{suffix}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def make_handler(log_format: str, stream: TextIO) -> logging.Handler:
    """Return a handler that writes "console" or "json" lines to `stream`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else _ConsoleFormatter())
    return handler


def set_up_logging(log_format: str = "console", level: str = "info", stream: TextIO | None = None) -> None:
    """Log everything from `level` on to `stream` (stderr), instead of what was set up before: for whoever owns the process.

    Lines of the HTTP server's own, and of what watches files, below warnings come with "debug" only.
    """
    logging.basicConfig(level=level.upper(), handlers=[make_handler(log_format, stream or sys.stderr)], force=True)
    quiet = logging.NOTSET if level == "debug" else logging.WARNING
    for name in ("uvicorn", "uvicorn.error", "asyncio", "watchfiles"):
        logging.getLogger(name).setLevel(quiet)


class AccessLog(NullObserver):
    """One line per request, at INFO to the logger `serving.access`."""

    def request_done(self, record: RequestRecord) -> None:
        """Write the line."""
        if not _access.isEnabledFor(logging.INFO):
            return
        fields = {
            "protocol": record.protocol,
            "method": record.method,
            "model": record.model,
            "status": record.status,
            "milliseconds": round(record.seconds * 1000, 3),
            "rows": record.rows,
            "received_bytes": record.received_bytes,
            "sent_bytes": record.sent_bytes,
            "client": record.client,
        }
        rest = " ".join(
            f"{key}={fields[key]}" for key in ("model", "rows", "received_bytes", "sent_bytes", "client") if fields[key]
        )
        _access.info(
            "%s %s %.1f ms %s",
            record.method,
            record.status,
            record.seconds * 1000,
            rest,
            extra={"fields": fields, "id": record.id},
        )


def _request_id(record: logging.LogRecord) -> str:
    request = current_request()
    return str(getattr(record, "id", "") or (request.id if request else ""))


class Seldom:
    """Says of each kind of thing, which anybody can cause, whether it may be logged now: once in `every_s` seconds. clock: in seconds."""

    def __init__(self, every_s: float = _EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._next: dict[str, float] = {}

    def may(self, kind: str) -> bool:
        """Return whether `kind` may be logged; then it may not for a while."""
        now = self._clock()
        if now < self._next.get(kind, now):
            return False
        if len(self._next) >= _MOST_KINDS:
            self._next = {known: when for known, when in self._next.items() if now < when}
        self._next[kind] = now + self._every_s
        return True
