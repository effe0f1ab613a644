"""Measures one family: what its networks have in common, and how much of that an export shares."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from benchmarks.studies.coverage.sharing.export import write_networks
from benchmarks.studies.coverage.sharing.family import TaskFamily
from benchmarks.studies.coverage.sharing.truth import add_up, run_graph, run_torch, stored_too_often
from contract.costs import shared_cost
from contract.dtypes import Array
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.graph.passes.canonical import canonicalise
from exporter.sharing.choose import CutOptions
from exporter.sharing.plan import SharingPlan, make_sharing_plan
from exporter.sources.onnx_file import load_onnx
from exporter.sources.task_model import Sources, TaskModel


@dataclass
class SharingRecord:
    """What is known of one family; filled as far as the measurement comes. `reason`: why it ended early, in one line.

    macs, weight_bytes: of all networks one by one, for one row. possible_macs, possible_bytes: of these, what another network has computed
    already, on the same inputs; torch_possible: the share of the MACs by torch's own operators. found_macs, found_bytes: what the export
    shares of that with every cut; cheap_macs: with the cuts that pay. distinct_bytes: of weights with different contents; stored_bytes: of
    all that the export stores. segments: with every cut; cheap_segments: with the cuts that pay. parity: the largest difference between
    composed and whole, in units of the answers' spread.
    """

    family: str
    what: str = ""
    tasks: int = 0
    reason: str = ""
    macs: int = 0
    possible_macs: int = 0
    found_macs: int = 0
    cheap_macs: int = 0
    torch_possible: float = 0.0
    weight_bytes: int = 0
    possible_bytes: int = 0
    found_bytes: int = 0
    distinct_bytes: int = 0
    stored_bytes: int = 0
    segments: int = 0
    cheap_segments: int = 0
    parity: float = 0.0
    remarks: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_gb: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def measure_sharing(family: TaskFamily, record: SharingRecord) -> None:
    """Fill `record` with what the export shares of `family`. Whatever goes wrong is raised."""
    record.what, record.tasks = family.what, len(family.tasks)
    with tempfile.TemporaryDirectory(prefix="sharing-") as scratch:
        started = time.perf_counter()
        files = write_networks(family, Path(scratch))
        record.seconds["trace"] = round(time.perf_counter() - started, 1)
        started = time.perf_counter()
        report = _export(files, Path(scratch) / "repository")
        record.seconds["export"] = round(time.perf_counter() - started, 1)
        started = time.perf_counter()
        _compare(family, files, report, record)
        record.seconds["truth"] = round(time.perf_counter() - started, 1)
    record.peak_gb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def _export(files: Mapping[str, Path], out: Path) -> ExportReport:
    sources = Sources({name: partial(_load, file) for name, file in files.items()})
    # Every cut, also where it does not pay: what is composed is to be checked.
    return export_repository(sources, ExportOptions(out, cuts=CutOptions("exact")))


def _load(file: Path) -> TaskModel:
    return TaskModel(ir.load(file), file=file)


def _compare(family: TaskFamily, files: Mapping[str, Path], report: ExportReport, record: SharingRecord) -> None:
    inputs: dict[str, Array] = {name: value.numpy() for name, value in family.inputs.items()}
    executed = [run_graph(canonicalise(ir.load(file)), inputs) for file in files.values()]
    possible = add_up(executed)
    in_torch = add_up([run_torch(task.network, [*family.inputs.values()]) for task in family.tasks.values()])
    repository, chains = report.repository, report.chains
    record.macs, record.possible_macs = possible.macs, possible.shared_macs
    record.weight_bytes, record.possible_bytes = possible.weight_bytes, possible.shared_bytes
    record.distinct_bytes = possible.distinct_bytes
    record.torch_possible = round(in_torch.shared_macs / in_torch.macs, 4)
    cost = shared_cost(repository, [*repository.tasks])
    record.found_macs, record.stored_bytes = possible.macs - cost.macs, cost.weight_bytes
    cheap = make_sharing_plan([*chains.values()], options=CutOptions("cheap"))
    record.cheap_macs, record.cheap_segments = possible.macs - _planned_macs(cheap), len(cheap.segments)
    stored = [load_onnx(repository.model_file(name), linked=True) for name in repository.segments]
    record.found_bytes = possible.shared_bytes - stored_too_often(executed, stored)
    record.segments = len(repository.segments)
    record.parity = max(report.parity_errors.values())
    record.remarks = dict(report.remarks)


def _planned_macs(plan: SharingPlan) -> int:
    """Return the MACs of one request for all tasks of `plan`."""
    macs = {name: sum(block.macs for block in segment.blocks) for name, segment in plan.segments.items()}
    steps = {(step.segment, tuple(tap.address for tap in step.inputs)) for steps in plan.tasks.values() for step in steps}
    return sum(macs[segment] for segment, _ in steps)
