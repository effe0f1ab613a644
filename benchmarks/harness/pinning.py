"""Clients on cores of their own, away from the server's, where there are enough."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from contract.system import available_cores, machine_cores

_ENOUGH = 4
_CAN_PIN = hasattr(os, "sched_setaffinity")  # Linux


@dataclass(frozen=True)
class Cores:
    """Cores by number. quota: as many of them as this process may keep busy, None: all."""

    server: tuple[int, ...]
    clients: tuple[int, ...]
    quota: int | None = None

    @property
    def shared(self) -> bool:
        """Whether server and clients use the same cores."""
        return self.server == self.clients

    @property
    def usable(self) -> int:
        """Return how many the server can keep busy."""
        return len(self.server) if self.quota is None else min(self.quota, len(self.server))

    @property
    def words(self) -> str:
        """Return it for people."""
        if self.quota is not None:
            return f"Server and clients share the time of {_count(self.quota)}, a quota, which costs the server throughput."
        if self.shared:
            return f"Server and clients share {_count(len(self.server))}, which costs the server throughput."
        return (
            f"The server has {_count(len(self.server))} of its own, and the clients have {_count(len(self.clients))} of theirs."
        )


def split_cores(cores: Sequence[int]) -> Cores:
    """Return a quarter of `cores` for the clients, at least one; all for both where there are fewer than four."""
    if len(cores) < _ENOUGH:
        return Cores(tuple(cores), tuple(cores))
    mine = len(cores) // 4
    return Cores(tuple(cores[:-mine]), tuple(cores[-mine:]))


def find_cores() -> Cores:
    """Return how the cores of this process are divided: not at all under a quota, which makes no core anyone's own."""
    cores = sorted(os.sched_getaffinity(0)) if _CAN_PIN else list(range(machine_cores()))
    quota = available_cores()
    if not _CAN_PIN or quota < len(cores):
        return Cores(tuple(cores), tuple(cores), quota if quota < len(cores) else None)
    return split_cores(cores)


def pin(cores: Sequence[int]) -> None:
    """Keep this thread, and the threads and processes that it starts from now on, on `cores`; where a system cannot, nothing happens."""
    if _CAN_PIN:
        os.sched_setaffinity(0, cores)


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Keep this thread on `cores` for a while. Threads and processes that it starts meanwhile stay there."""
    before = os.sched_getaffinity(0) if _CAN_PIN else set()
    pin(cores)
    try:
        yield
    finally:
        pin(tuple(before))


def _count(cores: int) -> str:
    return f"{cores} {'core' if cores == 1 else 'cores'}"
