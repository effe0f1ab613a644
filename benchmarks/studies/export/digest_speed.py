"""How long one large model takes to be read and reduced to its chain of digests, step by step.

Run as `python -m benchmarks.studies.export.digest_speed FILE` in a fresh process for each measurement.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.harness.process_memory import peak_bytes
from benchmarks.harness.stopwatch import Seconds, Stopwatch, read_seconds, run_fresh
from exporter.build.weight_store import WeightStore
from exporter.graph.digests import weight_digest
from exporter.graph.network import Network
from exporter.graph.passes.canonical import canonicalise
from exporter.sources.onnx_file import load_onnx


@dataclass(frozen=True)
class DigestCost:
    """Seconds by step for a file of `size` bytes with `blocks` blocks; peak: bytes resident at most."""

    phases: dict[str, Seconds]
    size: int
    blocks: int
    peak: int

    @property
    def total(self) -> Seconds:
        """Return the seconds of all steps."""
        return sum(self.phases.values(), Seconds())


def measure(path: Path) -> DigestCost:
    """Read `path` in a fresh process."""
    data = run_fresh("benchmarks.studies.export.digest_speed", path)
    return DigestCost(**{**data, "phases": read_seconds(data["phases"])})


def _read(path: Path) -> DigestCost:
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        with watch.phase("load_onnx"):
            model = load_onnx(path)
        with watch.phase("canonicalise"):
            graph = canonicalise(model)
        with watch.phase("hash the weights"):
            for value in graph.graph.initializers.values():
                weight_digest(value)
        with watch.phase("store the weights"):
            store = WeightStore(Path(scratch))
            store.take_over(graph)
        with watch.phase("infer shapes, addresses"):
            network = Network("network", graph)
        with watch.phase("split, block digests"):
            chain = network.chain()
        with watch.phase("save the graph"):
            store.save(graph, "whole")
    return DigestCost(watch.phases, path.stat().st_size, len(chain.blocks), peak_bytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the file on the command line in this process and print it as JSON."""
    (path,) = arguments or sys.argv[1:]
    print(json.dumps(asdict(_read(Path(path)))))


if __name__ == "__main__":
    main()
