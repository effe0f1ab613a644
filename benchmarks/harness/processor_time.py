"""The processor time that processes have taken (Linux): what a request costs, on a machine that others use as well."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def processor_s(processes: Iterable[int]) -> float:
    """Return the seconds, user and system, that all threads of `processes` have taken since they began; one that is gone counts as 0.

    In steps of a hundredth of a second: measure for some seconds.
    """
    return sum(map(_ticks, processes)) / _TICKS_PER_S


def _ticks(process: int) -> int:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # utime and stime
