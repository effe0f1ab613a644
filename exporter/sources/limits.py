"""A limit on memory while foreign models are taken apart: a few bytes of a file can ask for any amount of it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS = Path("/proc/self/statm")


@contextmanager
def limited_memory(extra_bytes: int) -> Iterator[None]:
    """Let this process take at most `extra_bytes` of address space more than it has; beyond that, MemoryError is raised.

    The kernel would otherwise end the process, or another one. Only where /proc tells how much the process has (Linux); a lower
    limit that is set already stays.
    """
    if not _STATUS.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = int(_STATUS.read_text().split()[0]) * resource.getpagesize() + extra_bytes
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
