"""How long an export of very many linear probes takes, and how long one more: ONNX files on one small backbone, equal but for their heads.

Run as `python -m benchmarks.studies.export.many_probes prepare FOLDER ...` once, then `... export` and `... add` in a fresh process each.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from benchmarks.harness.process_memory import peak_bytes
from benchmarks.harness.stopwatch import Seconds, Stopwatch, read_seconds, run_fresh
from exporter.add import AddOptions, add_tasks
from exporter.export import ExportOptions, export_repository
from exporter.open_models import open_sources

_MODULE = "benchmarks.studies.export.many_probes"
_BACKBONE, _REPOSITORY = "backbone.onnx", "repository"
_TRYING = "trying files out in a process of their own"  # of the processor: that of this process


@dataclass(frozen=True)
class ProbesCost:
    """Seconds by phase of what was done with so many tasks. tried: of the processor, that processes took in which files were tried out.

    peak: bytes resident at most.
    """

    what: str
    tasks: int
    phases: dict[str, Seconds]
    tried: float
    peak: int

    @property
    def total(self) -> Seconds:
        """Return the seconds of all phases."""
        return sum(self.phases.values(), Seconds(0.0, self.tried))


def measure(folder: Path, network: str, size: int, probes: int) -> list[ProbesCost]:
    """Export `probes` linear probes on `network` at `size` pixels, then add one more."""
    run_fresh(_MODULE, "prepare", folder, "--network", network, "--size", str(size), "--probes", str(probes + 1))
    found = [run_fresh(_MODULE, what, folder, "--probes", str(probes)) for what in ("export", "add")]
    return [ProbesCost(**{**data, "phases": read_seconds(data["phases"])}) for data in found]


def _prepare(folder: Path, network: str, size: int, probes: int) -> None:
    from benchmarks.models.synthetic import random_backbone
    from exporter.torch.export import BackboneExporter

    ir.save(BackboneExporter(random_backbone(network, size)).export_backbone().model, folder / _BACKBONE)
    model = onnx.load(folder / _BACKBONE)
    (head,) = (tensor for node in model.graph.node[-1:] for tensor in model.graph.initializer if tensor.name == node.input[1])
    values = numpy_helper.to_array(head)
    for index in range(probes):
        noise = np.random.default_rng(index).standard_normal(values.shape, np.float32)
        head.CopyFrom(numpy_helper.from_array(noise, head.name))
        onnx.save(model, _file(folder, index))


def _file(folder: Path, index: int) -> Path:
    return folder / f"probe-{index:04}.onnx"


def _timed(what: str, tasks: int, work: Callable[[Stopwatch], None]) -> ProbesCost:
    watch = Stopwatch()
    watch.switch(_TRYING)
    work(watch)
    watch.switch(None)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ProbesCost(what, tasks, watch.phases, children.ru_utime + children.ru_stime, peak_bytes())


def _progress(watch: Stopwatch) -> Callable[[str, int, int], None]:
    return lambda what, done, total: watch.switch("planning, and what is between" if done == total else what)


def _export(folder: Path, probes: int) -> ProbesCost:
    def work(watch: Stopwatch) -> None:
        sources = open_sources(folder / _BACKBONE, {_file(folder, index).stem: _file(folder, index) for index in range(probes)})
        export_repository(sources, ExportOptions(folder / _REPOSITORY), _progress(watch))

    return _timed("exported", probes, work)


def _add(folder: Path, probes: int) -> ProbesCost:
    def work(watch: Stopwatch) -> None:
        sources = open_sources(None, {"one-more": _file(folder, probes)})
        watch.switch("reading what is there")
        add_tasks(folder / _REPOSITORY, sources, AddOptions(), _progress(watch))

    return _timed("beside which one was added", probes, work)


def main() -> None:
    """Do what the command line says in this process and print what it took as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("what", choices=("prepare", "export", "add"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="test_resnet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--probes", type=int, default=1000)
    given = parser.parse_args()
    if given.what == "prepare":
        _prepare(given.folder, given.network, given.size, given.probes)
        print(json.dumps({}))
        return
    print(json.dumps(asdict((_export if given.what == "export" else _add)(given.folder, given.probes))))


if __name__ == "__main__":
    main()
