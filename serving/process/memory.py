"""Gives memory that was freed back to the system: after a peak the C library keeps what it took for as long as the process lives."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.process.threads import to_thread

_M_ARENA_MAX = -8
_LOOK_S = 1.0
_REST_S = 10.0  # it takes up to a tenth of a second for a gigabyte, in which others wait for memory
_GROWN_BYTES = 16 << 20


def malloc_trim() -> None:
    """Return the free pages of the heap to the system, where the C library can (glibc); others do so by themselves or not at all.

    ONNX Runtime frees large pieces between small ones that stay. Without this, optimising a segment keeps up to its size resident,
    and closing one would make no room.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def garbage_left() -> Iterator[None]:
    """Look for no garbage in the block, which makes much and drops little: half of the reading of 2,000 tasks was looking."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def share_one_heap() -> None:
    """Let threads that are begun from now on take memory from one heap (glibc), unless MALLOC_ARENA_MAX says how many there are to be.

    Of a thread's own heap up to 64 MB stay resident, which nothing gives back. For whoever owns the process.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None and "MALLOC_ARENA_MAX" not in os.environ:
        set_option(_M_ARENA_MAX, 1)


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
