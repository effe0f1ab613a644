"""Runs each family in a process of its own, with limits on time and memory, so that a bad one costs nothing but its own line."""

from __future__ import annotations

import json
import multiprocessing
import resource
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_Line = dict[str, Any]
_THREADS = 2


@dataclass(frozen=True)
class FamilyLimits:
    """What one family may use: wall-clock seconds, and GB of data beyond which its allocations fail."""

    seconds: float = 600
    memory_gb: float = 14


def read_lines(file: Path) -> list[_Line]:
    """Return the records in `file`, one per line of JSON, sorted by family; of several for one family the last. No file: none."""
    if not file.exists():
        return []
    lines = [json.loads(text) for text in file.read_text().splitlines() if text]
    return sorted({line["family"]: line for line in lines}.values(), key=lambda line: str(line["family"]))


def measure_families(
    families: Iterable[str], file: Path, measure: Callable[[str], _Line], again: Callable[[_Line], bool] = lambda line: False
) -> Iterator[_Line]:
    """Append `measure`'s record of each family to `file` and yield it; families that are there only if they are to be done `again`."""
    done = {line["family"] for line in read_lines(file) if not again(line)}
    file.parent.mkdir(parents=True, exist_ok=True)
    for family in families:
        if family not in done:
            line = measure(family)
            with file.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
            yield line


def measure_apart(family: str, cache: Path | None, limits: FamilyLimits, target: Callable[..., None] | None = None) -> _Line:
    """Return the record of `family`, measured in a process of its own, whose libraries a server process has imported before.

    target: what runs there, `_measure_here` by default: called with (connection, family, cache, limits), sends the record.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.studies.coverage.measure"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target or _measure_here, args=(sender, family, cache, limits))
    process.start()
    sender.close()
    try:
        if not receiver.poll(limits.seconds):
            return {"family": family, "reason": f"took longer than {limits.seconds:.0f} s"}
        line: _Line = receiver.recv()
    except EOFError:
        process.join()
        return {"family": family, "reason": f"the process ended with status {process.exitcode}"}
    finally:
        process.kill()
        process.join()
    return line


def _measure_here(sender: Connection, family: str, cache: Path | None, limits: FamilyLimits) -> None:
    """Send the record of `family`; what goes wrong, whatever it is, is its reason."""
    import torch

    from benchmarks.studies.coverage.measure import FamilyMeasurement

    resource.setrlimit(resource.RLIMIT_DATA, (int(limits.memory_gb * 1e9),) * 2)
    torch.set_num_threads(_THREADS)
    warnings.simplefilter("ignore")
    measurement = FamilyMeasurement(family, cache)
    try:
        measurement.run()
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        measurement.record.reason = f"{type(error).__name__}: {first}"[:300]
    sender.send(measurement.record.to_json())
