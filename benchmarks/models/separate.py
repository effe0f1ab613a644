"""Separate networks, as one would serve them without sharing: the baseline, one after another or side by side, as an expert would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import onnxruntime as ort

from contract.dtypes import Array
from contract.system import available_cores, have_cores
from serving.engines.onnxruntime.session import PROVIDERS, open_session, session_options

SEPARATE = "separate"  # one after another, each with all threads
SIDE_BY_SIDE = "separate, side by side"
Feed = Mapping[str, Array]


def open_network(model: Path | bytes, threads: int | None = None) -> ort.InferenceSession:
    """Return a session of a whole network, in a file or as its bytes, on the CPU with the options that the embedded engine would have.

    Benchmarks run on the CPU whatever else there is: torch and the servers of others, which they compare with, do.
    """
    return open_session(model, network_options(threads or available_cores()), PROVIDERS)


def network_options(threads: int) -> ort.SessionOptions:
    """Return the options of the embedded engine for one run of `threads` threads at a time."""
    return session_options(threads, spin=have_cores(threads))


def share_out(networks: int, threads: int) -> tuple[int, int]:
    """Return how many of `networks` run at a time, and the threads of each."""
    at_a_time = min(networks, threads)
    return at_a_time, threads // at_a_time


class SideBySide:
    """Networks in files, by name, for requests that want some of them. threads: of all that run at a time.

    Their sessions are others than those with all threads: as many threads as a network gets are fixed when it is opened.
    """

    def __init__(self, files: Mapping[str, Path], threads: int) -> None:
        self._files, self._threads = files, threads
        self._pool = ThreadPoolExecutor(threads)  # with fewer networks, fewer of them work
        self._width = 0  # threads of an open session
        self._sessions: dict[str, ort.InferenceSession] = {}

    def open(self, names: Sequence[str]) -> Callable[[Feed], list[Array]] | None:
        """Return what runs the networks `names` on one feed, as many at a time as `share_out` says.

        Its answers are the networks' first outputs, in the order of `names`. None where no two would run at a time. Sessions that are
        missing are opened, and stay open until another number of threads is wanted.
        """
        at_a_time, width = share_out(len(names), self._threads)
        if at_a_time < 2:
            return None
        if width != self._width:
            self._width, self._sessions = width, {}
        for name in names:
            if name not in self._sessions:
                self._sessions[name] = open_network(self._files[name], width)
        sessions = [self._sessions[name] for name in names]
        return lambda feed: list(self._pool.map(lambda session: session.run(None, dict(feed))[0], sessions))

    def forget(self) -> None:
        """Let go of the sessions; they are opened again when they are asked for."""
        self._sessions = {}

    def close(self) -> None:
        """Let go of the sessions and end the threads."""
        self.forget()
        self._pool.shutdown()


def fastest(seconds: Mapping[str, Sequence[float]], variants: Sequence[str]) -> str:
    """Return which of `variants` has the least median, of those that were measured. seconds: of each run, by variant."""
    return min((variant for variant in variants if variant in seconds), key=lambda variant: median(seconds[variant]))
