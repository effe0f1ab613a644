"""Which task each request asks for, and when it is sent. Pure functions of a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.repository import ALL_TASKS


@dataclass(frozen=True)
class Mix:
    """Models that are asked for, with the share of each; the shares add up to 1."""

    name: str
    models: tuple[str, ...]
    shares: tuple[float, ...]

    def draw(self, count: int, seed: int) -> tuple[str, ...]:
        """Return the models of `count` requests."""
        places = np.random.default_rng(seed).choice(len(self.models), size=count, p=self.shares)
        return tuple(self.models[place] for place in places)


def uniform(tasks: Sequence[str]) -> Mix:
    """Return every task as often as any other."""
    return Mix("uniform", tuple(tasks), (1 / len(tasks),) * len(tasks))


def zipf(tasks: Sequence[str], exponent: float = 1.0) -> Mix:
    """Return the task at place n (from 1) in proportion to n ** -exponent."""
    weights = [place**-exponent for place in range(1, len(tasks) + 1)]
    return Mix("Zipf", tuple(tasks), tuple(weight / sum(weights) for weight in weights))


def one_task(tasks: Sequence[str]) -> Mix:
    """Return the first task alone."""
    return Mix("one task", (tasks[0],), (1.0,))


def all_tasks(tasks: Sequence[str]) -> Mix:
    """Return all tasks in every request."""
    return Mix("all tasks at once", (ALL_TASKS,), (1.0,))


MIXES = (uniform, zipf, one_task, all_tasks)


def poisson_times(per_s: float, seconds: float, seed: int) -> tuple[float, ...]:
    """Return the times (seconds from 0, ascending, below `seconds`) of a Poisson process that has `per_s` arrivals a second.

    As many come as the rate says (rounded): a process free in its number would miss a rate of 10/s by 7 % in 20 seconds. Given their
    number, the arrivals of a Poisson process are independent and uniform.
    """
    return tuple(np.sort(np.random.default_rng(seed).uniform(0, seconds, round(per_s * seconds))).tolist())
