"""Measures the exporter on one network: does it find the fork that was made, and do the segments compute the whole?"""

from __future__ import annotations

import asyncio
import copy
import resource
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.studies.coverage.networks import TunedCopy, random_network, smallest_variant, tune
from benchmarks.studies.coverage.report import ERROR_LIMIT
from benchmarks.studies.coverage.traces import traced
from benchmarks.studies.coverage.truth import Array, count_equal, run_taps
from contract.plan import make_plan
from contract.repository import Repository, TensorSpec
from contract.repository.sample import sample_rows
from exporter.export import ExportOptions, export_repository
from exporter.graph.chain import Chain
from exporter.graph.network import make_chain
from exporter.graph.passes.canonical import canonicalise
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from exporter.torch.export import bind
from serving.engines.embedded import EmbeddedEngine
from tuning.network.blocks import is_under

_TASK = "tuned"
_BATCHES = (1, 3, 8)
_T = TypeVar("_T")


@dataclass
class _FamilyRecord:
    """What is known of one family; filled as far as the measurement comes.

    parameters: in millions. size: pixels. reason: why it ended early, in one line; exportable: whether torch can export the network
    with a dynamic batch size. blocks: pieces between cut points; largest_block: its share of the MACs. found_fork, made_fork: blocks
    before the fork, by the sharing plan and by running both networks. macs_before: share of the MACs before the fork, weights_before:
    share of the weights before the changed module. errors: composed against whole, by batch size, in units of the output's spread over
    rows; torch_error: the largest of composed against torch, whose batch is always the largest; rounding: torch in float32 against
    torch in float64, where the errors are too large. macs_ratio: ours over torch's. seconds: by stage.
    """

    family: str
    variant: str = ""
    parameters: float = 0.0
    size: int = 0
    exportable: bool | None = None
    reason: str = ""
    module: str = ""
    found_by: str = ""
    blocks: int = 0
    largest_block: float = 0.0
    found_fork: int = -1
    made_fork: int = -1
    macs_before: float = 0.0
    weights_before: float = 0.0
    errors: dict[str, float] = field(default_factory=dict)
    torch_error: float = -1.0
    rounding: float = 0.0
    macs: int = 0
    macs_ratio: float = 0.0
    uncounted: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    peak_gb: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


class FamilyMeasurement:
    """One family's measurement, in steps that fill `record`."""

    def __init__(self, family: str, cache: Path | None) -> None:
        self.record = _FamilyRecord(family)
        self._cache = cache

    def run(self) -> None:
        """Measure. Whatever goes wrong is raised; `record` then says how far it came."""
        record = self.record
        network, record.size, record.variant = random_network(smallest_variant(record.family))
        record.parameters = round(sum(p.numel() for p in network.parameters()) / 1e6, 2)
        trace = traced(network, record.size, record.variant.replace(" ", "-"), self._cache)
        record.seconds["trace"] = round(trace.seconds, 2)
        record.exportable, record.reason = trace.model is not None, trace.reason
        if trace.model is not None:
            self._measure(trace.model, network)
        record.peak_gb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)

    def _measure(self, trace: ir.Model, network: nn.Module) -> None:
        tuned = tune(network, seed=zlib.crc32(self.record.family.encode()))
        self.record.module, self.record.found_by = tuned.module, tuned.found_by
        self.record.weights_before = _weights_before(network, tuned)
        with tempfile.TemporaryDirectory(prefix="coverage-") as scratch:
            files = self._bind(trace, network, tuned.network, Path(scratch))
            chain = self._analyse(files, network)
            repository = self._export(files, Path(scratch) / "repository")
            self._compare(repository, files, chain, tuned.network)

    def _timed(self, stage: str, work: Callable[[], _T]) -> _T:
        started = time.perf_counter()
        result = work()
        self.record.seconds[stage] = round(time.perf_counter() - started, 2)
        return result

    def _bind(self, trace: ir.Model, network: nn.Module, tuned: nn.Module, folder: Path) -> dict[str, Path]:
        files = {"backbone": folder / "backbone.onnx", _TASK: folder / f"{_TASK}.onnx"}

        models = self._timed("bind", lambda: [bind(trace, module.state_dict()) for module in (network, tuned)])
        for file, model in zip(files.values(), models, strict=True):
            ir.save(model, file)
        return files

    def _analyse(self, files: dict[str, Path], network: nn.Module) -> Chain:
        """Analyse both networks, and compare the taps' values on the same random rows."""
        record, values, chains = self.record, {}, {}
        models = self._timed("canonical", lambda: {name: canonicalise(ir.load(file)) for name, file in files.items()})
        chains = self._timed("chains", lambda: {name: make_chain(name, model) for name, model in models.items()})
        record.blocks = len(chains[_TASK].blocks)
        rows = sample_rows(_input(chains[_TASK]), 2)
        for name, model in models.items():
            values[name] = run_taps(model, [block.end.name for block in chains[name].blocks], rows)
        record.made_fork = count_equal(values["backbone"], values[_TASK])
        blocks = chains["backbone"].blocks
        record.macs = sum(block.macs for block in blocks)
        record.largest_block = _share(max(block.macs for block in blocks), record.macs)
        record.macs_before = _share(sum(block.macs for block in chains[_TASK].blocks[: record.made_fork]), chains[_TASK].macs)
        record.macs_ratio = round(record.macs / _torch_macs(network, record.size), 4)
        record.uncounted = tuple(sorted({operator for block in blocks for operator in block.uncounted}))
        return chains[_TASK]

    def _export(self, files: dict[str, Path], out: Path) -> Repository:
        sources = Sources({_TASK: lambda: TaskModel(ir.load(files[_TASK]))}, lambda: TaskModel(ir.load(files["backbone"])))
        # Every cut, also where it does not pay: what is composed is to be checked.
        options = ExportOptions(out, parity_limit=float("inf"), cuts=CutOptions("exact"))
        report = self._timed("write", lambda: export_repository(sources, options))
        own = [step for step in report.plan.tasks[_TASK] if report.plan.segments[step.segment].role != "trunk"]
        self.record.found_fork = min(block.places[0] for step in own for block in step.blocks)
        return report.repository

    def _compare(self, repository: Repository, files: dict[str, Path], chain: Chain, tuned: nn.Module) -> None:
        rows = sample_rows(_input(chain), max(_BATCHES), seed=1)
        session = open_session(files[_TASK])
        with torch.inference_mode():
            expected = tuned(torch.from_numpy(rows)).numpy()
        torch_errors = []
        for batch, found in asyncio.run(_composed(repository, rows)).items():
            whole = session.run(None, {chain.inputs[0].name: rows[:batch]})[0]
            self.record.errors[str(batch)] = scaled_error(found, whole, expected)
            torch_errors.append(scaled_error(found, expected[:batch], expected))
        self.record.torch_error = max(torch_errors)
        if max(self.record.errors.values()) >= ERROR_LIMIT:
            self.record.rounding = scaled_error(expected, _in_float64(tuned, rows), expected)


def _input(chain: Chain) -> TensorSpec:
    (source,) = chain.inputs
    return TensorSpec(source.name, "UINT8" if source.dtype == "UINT8" else "FP32", source.shape)


def scaled_error(found: Array, expected: Array, rows: Array) -> float:
    """Return max|found - expected| over the largest standard deviation of any entry of `rows` over its first axis.

    The spread is taken from many rows because that of one row is zero.
    """
    difference = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())
    spread = float(np.std(rows.astype(np.float64), axis=0).max())
    return float(f"{difference / spread:.3g}") if spread else float("nan")


async def _composed(repository: Repository, rows: Array) -> dict[int, Array]:
    """Return the task's outputs by batch size, from the engine that serves it."""
    engine, plan = EmbeddedEngine(repository, threads=1), make_plan(repository, [_TASK])
    await engine.start()
    try:
        return {batch: (await engine.infer(plan, {plan.inputs[0]: rows[:batch]})).outputs[_TASK] for batch in _BATCHES}
    finally:
        await engine.aclose()


def _in_float64(network: nn.Module, rows: Array) -> Array:
    with torch.inference_mode():
        result: Array = copy.deepcopy(network).double()(torch.from_numpy(rows).double()).numpy()
    return result


def _torch_macs(network: nn.Module, size: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, size, size))
    return int(counter.get_total_flops()) // 2


def _weights_before(network: nn.Module, tuned: TunedCopy) -> float:
    """Return the share of the weights that are registered before the changed module, which is forward order throughout timm."""
    before = total = 0
    reached = False
    for name, parameter in network.named_parameters():
        reached = reached or is_under(name, (tuned.module,))
        before += 0 if reached else parameter.numel()
        total += parameter.numel()
    return _share(before, total)


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
