"""How the cores are shared out among runs: all for one that is alone, fewer for each where several wait.

Two threads do less than twice the work of one, for they wait for each other after every operator: several runs side by side, with a
thread each, are done sooner than one after the other with all threads. One alone is done soonest with all of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ThreadAllocation:
    """capacity: shares of the threads that there are. widths: how many a run may take, the most first; the last is 1.

    Raises ValueError for widths that do not begin at `capacity` or below, descend, and end with 1.
    """

    capacity: int
    widths: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if not self.widths or list(self.widths) != sorted(set(self.widths), reverse=True) or self.widths[-1] != 1:
            raise ValueError(f"widths must descend to 1, not {self.widths}.")
        if self.capacity < self.widths[0]:
            raise ValueError(f"A run of {self.widths[0]} shares needs as many; there are {self.capacity}.")

    def width(self, free: int, runs: int) -> int:
        """Return how many shares the next run takes where `free` are free and `runs` could begin now; 0: it has to wait."""
        if free < 1:
            return 0
        fair = free // max(1, min(runs, free))
        return next(width for width in self.widths if width <= fair)


def halving(threads: int) -> ThreadAllocation:
    """Return a share for each thread, of which a run takes all, half of them, and so on down to one."""
    widths = [threads]
    while widths[-1] > 1:
        widths.append(widths[-1] // 2)
    return ThreadAllocation(threads, tuple(widths))
