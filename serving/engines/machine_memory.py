"""How much memory this process may use: the machine's is too much in a container."""

from __future__ import annotations

import os
from pathlib import Path

from contract.system import CGROUP_FILE, CGROUP_ROOT, cgroup_folders


def available_memory_bytes() -> int:
    """Return the machine's memory, or the limit of the process's cgroup (v2) where that is less; 0 where nobody says."""
    names = getattr(os, "sysconf_names", {})
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else 0
    limit = cgroup_memory_bytes(CGROUP_FILE, CGROUP_ROOT)
    return min(physical or limit, limit) if limit else physical


def cgroup_memory_bytes(cgroup_file: Path, root: Path) -> int:
    """Return the least memory limit of the cgroup that `cgroup_file` names and of those above it; 0: none."""
    limits = [_limit(folder / "memory.max") for folder in cgroup_folders(cgroup_file, root)]
    return min((limit for limit in limits if limit), default=0)


def _limit(file: Path) -> int:
    """Return the bytes that a memory.max file allows, 0 for "max"."""
    try:
        text = file.read_text().strip()
        return int(text) if text != "max" else 0
    except (OSError, ValueError):
        return 0
