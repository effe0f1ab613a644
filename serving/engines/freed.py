"""Gives memory that was freed back to the system."""

from __future__ import annotations

import ctypes


def give_back_freed_memory() -> None:
    """Return the free pages of the heap to the system, where the C library can (glibc); others do so by themselves or not at all.

    ONNX Runtime frees large pieces between small ones that stay. Without this, optimising a segment keeps up to its size resident,
    and closing one would make no room.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
