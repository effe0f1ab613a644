"""How much of the cores' time went to others than this process and what it has started (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_MARK = "ESPALIER_BENCHMARK"  # in the environment of all that a benchmark starts, also of what leaves it to live on by itself
_PROC = Path("/proc")
_OF_CORE = (0, 1, 2, 7)  # user, nice, system, stolen by the host of a virtual machine
_OF_PROCESS = (11, 12, 13, 14)  # user, system, and both of its children that have ended


def mark_ours() -> None:
    """Mark what this process will start as its own, so that it is known even as somebody else's child."""
    os.environ.setdefault(_MARK, str(os.getpid()))


def foreign_seconds(cores: frozenset[int], proc: Path = _PROC) -> float:
    """Return the seconds that `cores` have worked for others since the machine was started; 0 on systems that do not tell.

    Only differences mean something. Interrupts count for nobody; the work of one of ours that ends and that nobody of ours waits for
    becomes others'. proc: the kernel's files.
    """
    wanted = tuple(f"cpu{core} " for core in cores)
    lines = [line.split()[1:] for line in _read(proc / "stat").splitlines() if line.startswith(wanted)]
    busy = sum(int(times[place]) for times in lines for place in _OF_CORE)
    return busy / os.sysconf("SC_CLK_TCK") - our_seconds(proc) if busy else 0.0


def our_seconds(proc: Path = _PROC) -> float:
    """Return the seconds that this process and what it has started have worked; what has ended counts where one of these waited for it."""
    mark = f"{_MARK}={os.environ.get(_MARK, '')}"
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    ours = [os.getpid()]
    for process, fields in _processes(proc):
        ticks[process] = sum(int(fields[place]) for place in _OF_PROCESS)
        children.setdefault(int(fields[1]), []).append(process)
        if process != ours[0] and mark in _read(proc / str(process) / "environ").split("\0"):
            ours.append(process)
    seen = dict.fromkeys(ours)
    for process in ours:  # grows on the way
        new = [child for child in children.get(process, ()) if child not in seen]
        seen.update(dict.fromkeys(new))
        ours.extend(new)
    return sum(ticks.get(process, 0) for process in ours) / os.sysconf("SC_CLK_TCK")


def _processes(proc: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each process with the fields of its stat that follow its name: state, parent, ..."""
    for folder in proc.iterdir():
        if folder.name.isdigit() and (fields := _read(folder / "stat").rpartition(")")[2].split()):
            yield int(folder.name), fields


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:  # it has ended, is another user's, or this is another system
        return ""
