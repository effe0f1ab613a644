"""Separate networks, as one would serve them without sharing: the baseline."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from contract.system import available_cores, have_cores
from serving.engines.onnxruntime.session import PROVIDERS, open_session, session_options


def open_network(model: Path | bytes, threads: int | None = None) -> ort.InferenceSession:
    """Return a session of a whole network, in a file or as its bytes, on the CPU with the options that the embedded engine would have.

    Benchmarks run on the CPU whatever else there is: torch and the servers of others, which they compare with, do.
    """
    return open_session(model, network_options(threads or available_cores()), PROVIDERS)


def network_options(threads: int) -> ort.SessionOptions:
    """Return the options of the embedded engine for one run of `threads` threads at a time."""
    return session_options(threads, spin=have_cores(threads))
