"""What a process has in memory, and whose it is (Linux)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes of a process.

    resident: everything, mapped files included. proportional: the same, pages that several processes share counted in parts.
    anonymous: what no file holds; the rest of `resident` are pages of files, which the system can drop and read again.
    """

    resident: int
    proportional: int
    anonymous: int

    @property
    def files(self) -> int:
        """Return the bytes of pages that are files'."""
        return self.resident - self.anonymous

    def __str__(self) -> str:
        sizes = (self.resident, self.proportional, self.anonymous, self.files)
        return "resident {:,.0f} MB (proportional {:,.0f}), of it anonymous {:,.0f}, of files {:,.0f}".format(
            *(size / 1e6 for size in sizes)
        )


def memory_of_process(pid: int) -> ProcessMemory:
    """Return the memory of process `pid` now. Raises OSError."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines}
    return ProcessMemory(sizes["Rss:"], sizes["Pss:"], sizes["Anonymous:"])


def peak_bytes() -> int:
    """Return the most memory that this process has had resident.

    From /proc (Linux): getrusage's ru_maxrss also counts the process that started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
