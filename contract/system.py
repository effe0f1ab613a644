"""How many cores and how much memory this process may use: the machine's are too many in a container or under taskset."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

CGROUP_FILE = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Return the number of cores that the scheduler gives this process: its CPU affinity, capped by cgroup v2 quotas, rounded up."""
    return max(1, math.ceil(_cores()))


def whole_cores() -> int:
    """Return the cores that threads of this process can keep busy all the time: as `available_cores`, rounded down; maybe 0."""
    return math.floor(_cores())


def have_cores(threads: int) -> bool:
    """Whether so many threads can all be busy at the same time: then those that wait for each other may stay awake."""
    return threads <= whole_cores()


def machine_cores() -> int:
    """Return the cores of the machine, whoever may use them: a fact about it, and no number of threads to start."""
    return os.cpu_count() or 1


def _cores() -> float:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine_cores()
    quota = cgroup_cores(CGROUP_FILE, CGROUP_ROOT)
    return affinity if quota is None else min(affinity, quota)


def waited_for_cores_s() -> float:
    """Return for how long the threads of this process could have run and had no core, seconds added up; 0 where nothing tells (not Linux).

    The kernel counts it to the nanosecond: others' work shows in runs that are too short for its other clocks.
    """
    waited = 0
    with suppress(OSError, ValueError, IndexError):
        for thread in Path("/proc/self/task").iterdir():
            waited += int((thread / "schedstat").read_text().split()[1])
    return waited / 1e9


def cgroup_cores(cgroup_file: Path, root: Path) -> float | None:
    """Return the tightest CPU quota, in cores, of the cgroup that `cgroup_file` names or of one above it; None: no quota."""
    quotas = [_quota(folder / "cpu.max") for folder in _cgroup_folders(cgroup_file, root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _cgroup_folders(cgroup_file: Path, root: Path) -> list[Path]:
    """Return the folder of the cgroup v2 that `cgroup_file` names, and those above it up to `root`."""
    folder = root / _own_cgroup(cgroup_file)
    return [level for level in (folder, *folder.parents) if level.is_relative_to(root)]


def _own_cgroup(file: Path) -> str:
    """Return the path of the process's cgroup v2 (the line "0::/path") below the root, or "" for the root itself."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), "")


def _quota(file: Path) -> float | None:
    """Return the cores that a cpu.max file allows: its line is "QUOTA PERIOD" in microseconds, or "max PERIOD"."""
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def available_memory_bytes() -> int:
    """Return the machine's memory, or the limit of the process's cgroup (v2) where that is less; 0 where nobody says."""
    physical = machine_memory_bytes()
    limit = cgroup_memory_bytes(CGROUP_FILE, CGROUP_ROOT)
    return min(physical or limit, limit) if limit else physical


def machine_memory_bytes() -> int:
    """Return the machine's memory, whoever may use it; 0 where nobody says."""
    names = getattr(os, "sysconf_names", {})
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else 0


def cgroup_memory_bytes(cgroup_file: Path, root: Path) -> int:
    """Return the least memory limit of the cgroup that `cgroup_file` names and of those above it; 0: none."""
    limits = [_memory_limit(folder / "memory.max") for folder in _cgroup_folders(cgroup_file, root)]
    return min((limit for limit in limits if limit), default=0)


def _memory_limit(file: Path) -> int:
    """Return the bytes that a memory.max file allows, 0 for "max"."""
    try:
        text = file.read_text().strip()
        return int(text) if text != "max" else 0
    except (OSError, ValueError):
        return 0


def processor_flags() -> frozenset[str]:
    """Return the names of what the processor's instruction set has, as Linux writes them; nothing where they are not known."""
    return frozenset(processor_fact("flags").split() or processor_fact("Features").split())


def processor_fact(field: str) -> str:
    """Return what Linux says of the processor under `field`, "" where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
