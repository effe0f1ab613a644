"""The families by kind, and how one is measured in a process of its own."""

from __future__ import annotations

import resource
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.studies.coverage.runner import FamilyLimits
from benchmarks.studies.coverage.sharing.dense import dense_families
from benchmarks.studies.coverage.sharing.family import MakeFamily
from benchmarks.studies.coverage.sharing.measure import SharingRecord, measure_sharing
from benchmarks.studies.coverage.sharing.text import text_families

KINDS: Mapping[str, Callable[[], dict[str, MakeFamily]]] = {"dense": dense_families, "text": text_families}
_THREADS = 2


def measure_here(sender: Connection, family: str, cache: Path | None, limits: FamilyLimits) -> None:
    """Send the record of `family`; what goes wrong, whatever it is, is its reason."""
    import torch

    resource.setrlimit(resource.RLIMIT_DATA, (int(limits.memory_gb * 1e9),) * 2)
    torch.set_num_threads(_THREADS)
    warnings.simplefilter("ignore")
    record = SharingRecord(family)
    try:
        make = next(families[family] for families in (kind() for kind in KINDS.values()) if family in families)
        measure_sharing(make(), record)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        record.reason = f"{type(error).__name__}: {first}"[:300]
    sender.send(record.to_json())
