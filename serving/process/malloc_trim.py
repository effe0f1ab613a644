"""Gives memory that was freed back to the system."""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8


def malloc_trim() -> None:
    """Return the free pages of the heap to the system, where the C library can (glibc); others do so by themselves or not at all.

    ONNX Runtime frees large pieces between small ones that stay. Without this, optimising a segment keeps up to its size resident,
    and closing one would make no room.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def share_one_heap() -> None:
    """Let threads that are begun from now on take memory from one heap (glibc), unless MALLOC_ARENA_MAX says how many there are to be.

    Of a thread's own heap up to 64 MB stay resident, which nothing gives back. For whoever owns the process.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None and "MALLOC_ARENA_MAX" not in os.environ:
        set_option(_M_ARENA_MAX, 1)
