"""The demo's steps in order, and what it prints of each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
from rich.markup import escape

from benchmarks.latency.compare import compare_latency
from benchmarks.memory.measure import compare_memory
from contract.dtypes import Array
from contract.repository import Repository
from espalier.console import console, progress_bars
from espalier.demo.query import Interrogator, Query, ask_all_ways, png_bytes
from espalier.demo.report import accuracy_table, queries_table, winnings_table
from espalier.demo.tasks import choose_tasks
from espalier.demo.tune import TunedTask, get_backbone, sample_images, tune_tasks
from espalier.tables.tree import repository_tree
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.sources.onnx_file import load_onnx
from exporter.sources.task_model import LoadTaskModel, Sources, TaskModel
from exporter.torch.export import BackboneExporter
from serving.server import BackgroundServer, Server, run
from tuning.network.backbone import Backbone, save_backbone


@dataclass(frozen=True)
class DemoOptions:
    """What the command line says; see `espalier demo --help`."""

    backbone: str | None
    checkpoint: Path | None
    out: Path
    epochs: int | None
    serve: bool
    http_port: int
    grpc_port: int


def run_demo(options: DemoOptions) -> None:
    """Run all steps. Raises the errors of the parts; what was finished before stays in `options.out`."""
    started = time.monotonic()
    for folder in ("checkpoints", "networks"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)

    chosen = choose_tasks(options.backbone)
    pixels = f", {chosen.image_size} pixels" if chosen.image_size else ""
    _heading(1, f"A backbone, and tasks tuned on it ({chosen.pictures}{pixels})")
    with progress_bars() as progress:
        backbone = get_backbone(options.backbone, options.checkpoint, chosen.image_size, progress)
        save_backbone(backbone, options.out / "backbone.safetensors")
        tuned = tune_tasks(backbone, chosen, options.out / "checkpoints", options.epochs or chosen.epochs, progress)
    console.print(accuracy_table(tuned))

    _heading(2, "Export: one frozen trunk and its branches")
    networks = {item.task.name: options.out / "networks" / f"{item.task.name}.onnx" for item in tuned}
    report = _export(backbone, tuned, networks, options.out / "repository")
    console.print(repository_tree(report.repository))
    worst = max(report.parity_errors.values())
    console.print(f"Composed segments equal the whole networks (largest difference {worst:.1e} of the outputs' spread).")

    _heading(3, "Serve it, and ask for one task, some and all")
    images: Array = sample_images(backbone, chosen, 4)
    sample = options.out / chosen.sample[1]
    sample.write_bytes(png_bytes(images[0]))
    console.print(queries_table(_query(report.repository, networks, images), report.repository))

    _heading(4, "What was won")
    with console.status("Measuring latency and memory"):
        latency = compare_latency(report.repository, networks, images[:1])
        memory = compare_memory(report.repository.path, networks)
    console.print(winnings_table(report.repository, latency, memory))
    console.print(f"Done in {time.monotonic() - started:.0f} s. Everything is in {escape(str(options.out))}/.", soft_wrap=True)
    if options.serve:
        run(report.repository.path, http_port=options.http_port, grpc_port=options.grpc_port, on_ready=_inviting_to(sample))


def _heading(number: int, title: str) -> None:
    console.print()
    console.rule(f"[bold]{number}. {title}", align="left")


def _export(backbone: Backbone, tuned: list[TunedTask], networks: dict[str, Path], out: Path) -> ExportReport:
    """Write the whole networks (to compare with) and the repository that is made from these very files."""
    exporter = BackboneExporter(backbone)
    models = {}
    with progress_bars() as progress:
        for index, item in enumerate(tuned):
            progress("Exporting networks from torch", index, len(tuned) + 1)
            model = exporter.export_task(item.checkpoint)
            ir.save(model.model, networks[item.task.name])
            models[item.task.name] = replace(model, model=ir.Model(ir.Graph((), (), nodes=()), ir_version=10))
        trunk = exporter.export_backbone()
        progress("Exporting networks from torch", len(tuned) + 1, len(tuned) + 1)
        sources = Sources({name: _reload(models[name], path) for name, path in networks.items()}, lambda: trunk)
        return export_repository(sources, ExportOptions(out, force=True), progress)


def _reload(model: TaskModel, path: Path) -> LoadTaskModel:
    return lambda: replace(model, model=load_onnx(path))


def _query(repository: Repository, networks: dict[str, Path], images: Array) -> list[Query]:
    with BackgroundServer(repository.path, http_port=0, grpc_port=0) as server:
        interrogator = Interrogator(repository, networks, f"127.0.0.1:{server.http_port}", f"127.0.0.1:{server.grpc_port}")
        try:
            return ask_all_ways(interrogator, list(repository.tasks), images)
        finally:
            interrogator.close()


def _inviting_to(image: Path) -> Callable[[Server], None]:
    def invite(server: Server) -> None:
        console.print(
            f"Serving on http://{server.http_address} (API at /docs) and grpc://{server.grpc_address}; Ctrl-C stops. Try:",
            soft_wrap=True,
        )
        console.print(
            f"  curl --data-binary @{escape(str(image))} 'http://{server.http_address}/predict?top_k=2'",
            soft_wrap=True,
            highlight=False,
        )

    return invite
