"""What benchmarks/studies/many_tasks/measure.py has measured, and what a person wants to know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.process_memory import ProcessMemory


@dataclass(frozen=True)
class ManyTasksOptions:
    """memory_limit: bytes, None: none. asked: tasks that are asked one by one, None: all. again: those of them that are asked again.

    seconds: of the mix, 0: no mix. threads: of the engine, None: all cores.
    """

    memory_limit: int | None = None
    asked: int | None = None
    again: int = 100
    seconds: float = 30.0
    clients: int = 8
    threads: int | None = None


@dataclass(frozen=True)
class Timed:
    """One answer to one client. state: of the segments that it took: new, known, closed or open."""

    task: str
    state: str
    milliseconds: float


@dataclass(frozen=True)
class MixedRequests:
    """Tasks asked by Zipf's law by several clients at once. opened: how many answers had to open a segment, about."""

    requests: int
    seconds: float
    opened: int
    latencies_ms: tuple[float, ...]


@dataclass(frozen=True)
class ServedTasks:
    """One life of a server. start_s: from its process to being ready. opened_at_start: segments."""

    cache: str
    start_s: float
    opened_at_start: int
    answers: tuple[Timed, ...]
    mix: MixedRequests | None
    after_start: ProcessMemory
    after_all: ProcessMemory
    at_end: ProcessMemory


@dataclass(frozen=True)
class ManyTasks:
    """What was found. disk_bytes: of the repository; cache_bytes: of the optimised segments."""

    options: ManyTasksOptions
    tasks: int
    segments: int
    disk_bytes: int
    cache_bytes: int
    servers: tuple[ServedTasks, ...]


def describe(found: ManyTasks) -> list[str]:
    """Return what a person wants to know, as lines."""
    lines = [
        f"{found.tasks:,} tasks, {found.segments:,} segments; on disk {found.disk_bytes / 1e9:.2f} GB, "
        f"their cache {found.cache_bytes / 1e9:.2f} GB; memory limit {_limit(found.options)}"
    ]
    for server in found.servers:
        lines.append(
            f"server with {server.cache} segments: ready after {server.start_s:.1f} s with {server.opened_at_start:,} open"
        )
        lines += [
            f"  {when:16} {memory}"
            for when, memory in (
                ("after the start", server.after_start),
                ("asked one by one", server.after_all),
                ("at the end", server.at_end),
            )
        ]
        lines += [f"  {kind:8} {state:6} {_spread(values)}" for (kind, state), values in sorted(by_state(server.answers).items())]
        lines += [_describe_mix(server.mix)] if server.mix else []
    return lines


def by_state(answers: Sequence[Timed]) -> Mapping[tuple[str, str], list[float]]:
    """Return the milliseconds of answers by kind of task (its name without number) and state."""
    found: dict[tuple[str, str], list[float]] = {}
    for answer in answers:
        found.setdefault((answer.task.rpartition("-")[0], answer.state), []).append(answer.milliseconds)
    return found


def _spread(values: Sequence[float]) -> str:
    median, high = np.percentile(values, [50, 90])
    return f"{len(values):6,} answers: median {median:7.1f} ms, p90 {high:7.1f}, largest {max(values):7.1f}"


def _describe_mix(mix: MixedRequests) -> str:
    median, high = np.percentile(mix.latencies_ms, [50, 99])
    rate, share = mix.requests / mix.seconds, 100 * mix.opened / mix.requests
    return (
        f"  Zipf's mix: {rate:.1f} requests/s, median {median:.0f} ms, p99 {high:.0f} ms; {share:.0f} % of them opened a segment"
    )


def _limit(options: ManyTasksOptions) -> str:
    return f"{options.memory_limit / 1e9:.2f} GB" if options.memory_limit else "none"
