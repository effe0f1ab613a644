"""The v2 protocol's trace and log settings. Clients can read them; they are fixed while the server runs."""

from __future__ import annotations

from collections.abc import Collection

from serving.errors import Unsupported

# Triton's names, and its values for what is off.
TRACE_SETTINGS: dict[str, list[str]] = {
    "trace_level": ["OFF"],
    "trace_rate": ["1000"],
    "trace_count": ["-1"],
    "log_frequency": ["0"],
    "trace_file": [""],
    "trace_mode": ["triton"],
}
LOG_SETTINGS: dict[str, str | bool | int] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}


def refuse_changes(kind: str, changes: Collection[str]) -> None:
    """Raise Unsupported when a client wants to change a setting; a request without changes only reads them."""
    if changes:
        raise Unsupported(f"The {kind} settings are fixed while the server runs; start it with others instead.")
