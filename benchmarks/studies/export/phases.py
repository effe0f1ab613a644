"""How long an export takes, phase by phase, and how much memory: of a family of tasks with random weights.

Run as `python -m benchmarks.studies.export.phases prepare FOLDER ...` once, then `... torch` or `... onnx`
in a fresh process for each measurement.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.harness.process_memory import peak_bytes
from benchmarks.harness.stopwatch import Seconds, Stopwatch, read_seconds, run_fresh
from exporter.export import ExportOptions, export_repository
from exporter.sources.onnx_file import load_onnx
from exporter.sources.task_model import LoadTaskModel, Sources, TaskModel

_BACKBONE = "backbone.onnx"
_CLASSES = 100
_PHASES = {
    "Reading models": "canonical form, digests, store",
    "Running whole networks": "parity check",
    "Writing segments": "writing",
    "Checking composed against whole": "parity check",
}
_ANALYSIS = (
    _PHASES["Reading models"],
    "planning",
    _PHASES["Writing segments"],
)  # what the exporter itself does, but for the check


@dataclass(frozen=True)
class ExportCost:
    """Seconds by phase; peak: bytes resident at most, of which `idle` were before the export began; largest: bytes of one model."""

    source: str
    tasks: int
    phases: dict[str, Seconds]
    peak: int
    idle: int
    largest: int

    @property
    def total(self) -> Seconds:
        """Return the seconds of all phases."""
        return sum(self.phases.values(), Seconds())

    @property
    def analysis(self) -> Seconds:
        """Return the seconds of reading, planning and writing, without torch, loading and the check."""
        return sum((self.phases[name] for name in _ANALYSIS), Seconds())


def prepare(folder: Path, network: str, size: int) -> None:
    """Write the backbone of the family as ONNX, in a process of its own."""
    run_fresh("benchmarks.studies.export.phases", "prepare", folder, "--network", network, "--size", str(size))


def measure(source: str, folder: Path, network: str, size: int, tasks: int, blocks: Sequence[str]) -> ExportCost:
    """Export `tasks` tasks, each with one of `blocks` (in turn) and its head changed, in a fresh process.

    source: "torch" (checkpoints on a backbone) or "onnx" (whole models, without torch in the process).
    """
    options = ["--network", network, "--size", str(size), "--tasks", str(tasks), "--blocks", ",".join(blocks)]
    data = run_fresh("benchmarks.studies.export.phases", source, folder, *options)
    return ExportCost(**{**data, "phases": read_seconds(data["phases"])})


def _export(source: str, sources: Sources, watch: Stopwatch, folder: Path) -> ExportCost:
    def progress(what: str, done: int, total: int) -> None:
        watch.switch("planning" if what == "Reading models" and done == total else _PHASES[what])

    idle = peak_bytes()
    with tempfile.TemporaryDirectory(dir=folder) as out:
        export_repository(sources, ExportOptions(Path(out) / "repository"), progress)
        watch.switch(None)
    largest = (folder / _BACKBONE).stat().st_size
    return ExportCost(source, len(sources.tasks), watch.phases, peak_bytes(), idle, largest)


def _from_torch(arguments: argparse.Namespace, watch: Stopwatch) -> Sources:
    from benchmarks.models.synthetic import random_backbone, random_task
    from exporter.torch.export import BackboneExporter

    backbone = random_backbone(arguments.network, arguments.size)
    exporter = BackboneExporter(backbone)

    def task(index: int) -> TaskModel:
        checkpoint = random_task(backbone, (_block(arguments, index),), _CLASSES, seed=index)
        return exporter.export_task(checkpoint)

    return _sources(arguments.tasks, exporter.export_backbone, task, watch, ("trace and backbone", "bind, optimise, compare"))


def _from_onnx(arguments: argparse.Namespace, watch: Stopwatch) -> Sources:
    file = Path(arguments.folder) / _BACKBONE

    def task(index: int) -> TaskModel:
        model = load_onnx(file)
        with watch.phase("making up tasks"):
            _tune(model, _block(arguments, index), index)
        return TaskModel(model)

    return _sources(arguments.tasks, lambda: TaskModel(load_onnx(file)), task, watch, ("loading", "loading"))


def _sources(
    tasks: int, backbone: LoadTaskModel, task: Callable[[int], TaskModel], watch: Stopwatch, phases: tuple[str, str]
) -> Sources:
    def timed(phase: str, load: LoadTaskModel) -> LoadTaskModel:
        def loader() -> TaskModel:
            with watch.phase(phase):
                return load()

        return loader

    loaders = {f"task-{index}": timed(phases[1], lambda index=index: task(index)) for index in range(tasks)}  # type: ignore[misc]
    return Sources(loaders, timed(phases[0], backbone))


def _block(arguments: argparse.Namespace, index: int) -> str:
    blocks: list[str] = arguments.blocks.split(",")
    return blocks[index % len(blocks)]


def _tune(model: ir.Model, block: str, seed: int) -> None:
    """Change the weights of `block` and of the head (what is after the last block: named without a number) by 1 % of noise."""
    rng = np.random.default_rng(seed)
    for name, value in model.graph.initializers.items():
        if value.const_value is not None and name.startswith((f"network.{block}.", "network.fc.", "network.head.")):
            array = value.const_value.numpy()
            value.const_value = ir.tensor(array * (1 + 0.01 * rng.standard_normal(array.shape, np.float32)), name=name)


def _prepare(arguments: argparse.Namespace) -> None:
    from benchmarks.models.synthetic import random_backbone
    from exporter.torch.export import BackboneExporter

    backbone = random_backbone(arguments.network, arguments.size)
    ir.save(BackboneExporter(backbone).export_backbone().model, Path(arguments.folder) / _BACKBONE)


def main() -> None:
    """Measure what the command line says in this process and print it as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("source", choices=("prepare", "torch", "onnx"))
    parser.add_argument("folder")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--blocks", default="layer4.1")
    arguments = parser.parse_args()
    if arguments.source == "prepare":
        _prepare(arguments)
        print(json.dumps({}))
        return
    watch = Stopwatch()
    sources = (_from_torch if arguments.source == "torch" else _from_onnx)(arguments, watch)
    cost = _export(arguments.source, sources, watch, Path(arguments.folder))
    print(json.dumps(asdict(cost)))


if __name__ == "__main__":
    main()
