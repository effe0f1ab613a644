"""How the sessions of the embedded engine are opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.engines.device_tensors import Device
from serving.engines.onnxruntime.segment_cache import DEFAULT_LIMIT_BYTES


@dataclass(frozen=True)
class SessionStoreOptions:
    """How sessions are opened.

    threads: of each session (None: the cores of this process); small segments take one. provider: see providers.PROVIDER_CHOICES.
    cache_folder: where optimised segments are kept (None: nowhere; only for the CPU provider), cache_limit_bytes of them at most;
    TensorRT keeps its engines in `engines` beside it, without a limit.
    record_hashes: whether files that were hashed since the machine started are believed to be the same while they are not written.
    memory_limit_bytes: what open sessions may take together (None: no limit). Counted per session: the size of its model file and
    250 kB. Not counted: features and answers of running requests, and for the moments in which ONNX Runtime optimises a segment that
    is not in the cache, another two or three times its weights.
    spin: as of `session_options`.
    device: where features stay between segments; None: on the GPU if that computes, else on the host.
    """

    threads: int | None = None
    provider: str = "auto"
    cache_folder: Path | None = None
    cache_limit_bytes: int = DEFAULT_LIMIT_BYTES
    record_hashes: bool = True
    memory_limit_bytes: int | None = None
    spin: bool = True
    device: Device | None = None
