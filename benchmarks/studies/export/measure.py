"""Measures the exporter: `python -m benchmarks.studies.export`. Phases of an export, digesting a large model, planning many tasks,
exporting very many linear probes and adding one more. Its four goals (docs/measurements/gains.md) are measured by
`python -m benchmarks.studies.export --only export --only planning --only probes`.

Seconds are given on the wall and of the processor (all threads): where other work shares the machine, trust the latter. Memory is what a
fresh process had resident at most.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness.stopwatch import Seconds
from benchmarks.models.vit_onnx import VitSize, write_vit
from benchmarks.studies.export import digest_speed, many_probes, planning_speed
from benchmarks.studies.export import phases as export_phases
from benchmarks.studies.export.digest_speed import DigestCost
from benchmarks.studies.export.many_probes import ProbesCost
from benchmarks.studies.export.phases import ExportCost
from benchmarks.studies.export.planning_speed import PlanningCost

_PARTS = ("export", "digest", "planning", "probes")


def _measure_exports(
    folder: Path, network: str, size: int, blocks: Sequence[str], runs: Sequence[tuple[str, int]]
) -> list[ExportCost]:
    """Measure an export for each of `runs` (source and number of tasks) in a fresh process."""
    export_phases.prepare(folder, network, size)
    return [export_phases.measure(source, folder, network, size, tasks, blocks) for source, tasks in runs]


def _measure_digest(folder: Path, size: VitSize) -> DigestCost:
    """Measure how a transformer of `size` is digested in a fresh process."""
    path = write_vit(folder / "vit.onnx", size)
    try:
        return digest_speed.measure(path)
    finally:
        path.unlink()


def _describe_export(cost: ExportCost) -> str:
    """Return the phases of an export as a table."""
    limit = 2 * cost.largest + 1_000_000_000
    lines = [f"Export of {cost.tasks} tasks from {cost.source}: wall, processor", *_phases(cost.phases)]
    lines.append(_line("all", cost.total))
    lines.append(_line("reading, planning, writing", cost.analysis))
    lines.append(
        f"  memory: {cost.peak / 1e6:,.0f} MB at most, of which {cost.idle / 1e6:,.0f} MB before the export; the largest model has "
        f"{cost.largest / 1e6:,.0f} MB (twice that and 1 GB: {limit / 1e6:,.0f} MB)"
    )
    return "\n".join(lines)


def _describe_digest(cost: DigestCost) -> str:
    """Return the steps of digesting one model as a table."""
    lines = [f"Digesting a model of {cost.size / 1e6:,.0f} MB with {cost.blocks} blocks: wall, processor", *_phases(cost.phases)]
    return "\n".join([*lines, _line("all", cost.total), f"  memory: {cost.peak / 1e6:,.0f} MB at most"])


def _describe_probes(cost: ProbesCost) -> str:
    """Return the phases of an export of probes, or of one more, as a table."""
    lines = [f"{cost.tasks:,} linear probes {cost.what}: wall, processor", *_phases(cost.phases)]
    lines.append(f"  {'processes in which files were tried out':44}{'':10} {cost.tried:8.2f} s")
    return "\n".join([*lines, _line("all", cost.total), f"  memory: {cost.peak / 1e6:,.0f} MB at most"])


def _describe_planning(costs: Sequence[PlanningCost]) -> str:
    """Return the seconds of planning as a table."""
    names = (f"{cost.tasks} x {cost.blocks} blocks, {cost.rule}, {cost.segments} segments" for cost in costs)
    lines = (_line(name, cost.seconds) for name, cost in zip(names, costs, strict=True))
    return "\n".join(["Planning: wall, processor", *lines])


def _phases(phases: Mapping[str, Seconds]) -> list[str]:
    return [_line(name, seconds) for name, seconds in phases.items()]


def _line(name: str, seconds: Seconds) -> str:
    return f"  {name:44}{seconds}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the exporter costs and print it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--only", choices=_PARTS, action="append", help="measure this part only; repeat it for several")
    parser.add_argument("--network", default="resnet50", help="a timm name")
    parser.add_argument("--size", type=int, default=224, help="pixels of the square input")
    parser.add_argument("--blocks", default="layer3.5,layer4.0,layer4.1,layer4.2", help="what the tasks tune, in turn")
    parser.add_argument("--runs", default="torch:8,onnx:8,onnx:32", help="exports to measure, as SOURCE:TASKS, with commas")
    parser.add_argument("--depth", type=int, default=VitSize().depth, help="blocks of the transformer to digest")
    parser.add_argument("--plan-tasks", type=int, default=100)
    parser.add_argument("--plan-blocks", type=int, default=18)
    parser.add_argument("--probe-network", default="test_resnet", help="a timm name; small: each probe is a file with all of it")
    parser.add_argument("--probe-size", type=int, default=64)
    parser.add_argument("--probes", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args(arguments)
    parts = options.only or _PARTS
    with tempfile.TemporaryDirectory() as folder:
        exports, digest, probes = [], None, []
        if "export" in parts:
            runs = [(source, int(tasks)) for source, _, tasks in (run.partition(":") for run in options.runs.split(","))]
            exports = _measure_exports(Path(folder), options.network, options.size, options.blocks.split(","), runs)
        if "digest" in parts:
            digest = _measure_digest(Path(folder), VitSize(depth=options.depth))
        if "probes" in parts:
            probes = many_probes.measure(Path(folder), options.probe_network, options.probe_size, options.probes)
    plans = planning_speed.measure(options.plan_tasks, options.plan_blocks) if "planning" in parts else []
    if options.json:
        data: dict[str, Any] = {
            "export": [asdict(cost) for cost in exports],
            "digest": asdict(digest) if digest else None,
            "planning": [asdict(cost) for cost in plans],
            "probes": [asdict(cost) for cost in probes],
        }
        print(json.dumps(data, indent=2))
        return
    texts = [*map(_describe_export, exports), *([_describe_digest(digest)] if digest else []), *map(_describe_probes, probes)]
    print("\n\n".join([*texts, *([_describe_planning(plans)] if plans else [])]))
