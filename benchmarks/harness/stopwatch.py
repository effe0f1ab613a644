"""Seconds by phase, on the wall and of the processor; and work in a process of its own, which nothing has warmed up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Seconds:
    """wall: elapsed. cpu: of all threads of the process, which other work on the machine disturbs less."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __str__(self) -> str:
        return f"{self.wall:8.2f} s {self.cpu:8.2f} s"


class Stopwatch:
    """Adds time up by phase. At any moment one phase runs; time before the first belongs to none."""

    def __init__(self) -> None:
        self.phases: dict[str, Seconds] = {}
        self._current: str | None = None
        self._started = _now()

    def switch(self, phase: str | None) -> None:
        """End the phase that runs; begin or go on with `phase`, or with none."""
        now = _now()
        if self._current is not None:
            spent = Seconds(now.wall - self._started.wall, now.cpu - self._started.cpu)
            self.phases[self._current] = self.phases.get(self._current, Seconds()) + spent
        self._current, self._started = phase, now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside as `name`, and then go on with the phase that ran before."""
        before = self._current
        self.switch(name)
        try:
            yield
        finally:
            self.switch(before)


def run_fresh(module: str, *arguments: str | Path) -> dict[str, Any]:
    """Run `python -m module arguments` in a process of its own; return the JSON that it prints last."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    data: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return data


def read_seconds(data: dict[str, dict[str, float]]) -> dict[str, Seconds]:
    """Return phases as they were before they went through JSON."""
    return {name: Seconds(**seconds) for name, seconds in data.items()}


def _now() -> Seconds:
    return Seconds(time.perf_counter(), time.process_time())
