"""Gives memory back after a peak: what large requests have taken stays with the C library otherwise, as long as the process lives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from serving.process.malloc_trim import malloc_trim
from serving.process.threads import to_thread

_LOOK_S = 1.0
_REST_S = 10.0  # it takes up to a tenth of a second for a gigabyte, in which others wait for memory
_GROWN_BYTES = 16 << 20


async def give_back_in_idle_moments(is_idle: Callable[[], bool]) -> None:
    """For ever, where the memory has grown by 16 MiB since the last time and `is_idle()`, give back what is free; every 10 s at most."""
    least = resident_bytes()
    while True:
        await asyncio.sleep(_LOOK_S)
        least = min(least, resident_bytes())
        if resident_bytes() - least >= _GROWN_BYTES and is_idle():
            await to_thread(malloc_trim)
            least = resident_bytes()
            await asyncio.sleep(_REST_S)


def resident_bytes() -> int:
    """Return the memory that this process has; 0 where nothing tells (not Linux)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
