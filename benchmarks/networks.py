"""Separate networks, as one would serve them without sharing: the baseline."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from serving.engines.embedded import session_options
from serving.engines.providers import choose_providers


def open_network(path: Path, threads: int | None = None) -> ort.InferenceSession:
    """Return a session of a whole network with the options of the embedded engine, on the provider that it would choose."""
    return ort.InferenceSession(str(path), session_options(threads), providers=list(choose_providers("auto")))
