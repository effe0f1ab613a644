"""The exporter's pipeline: task models in, one model repository out.

Read each model once (canonical form, digest chain), decide the sharing plan, extract the segments, write their configurations, check
every task against its whole model, and only then let the repository appear. One model is in memory at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from exporter.chain import Chain, Tap, make_chain
from exporter.check import check_labels, check_names, check_together, explain_sharing
from exporter.errors import ParityError
from exporter.extract import extract_segment
from exporter.parity import ParityChecker, sample_rows
from exporter.passes import canonicalise
from exporter.planning import PlannedSegment, SharingPlan, make_sharing_plan
from exporter.sources import LoadTaskModel, Sources
from exporter.task_model import TaskModel
from exporter.write import check_output, model_path, write_configs, written_whole
from serving.repository import Repository, Segment, Step, Task, TensorSpec
from serving.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT

BACKBONE = "the backbone"
INPUT = "image"
_V2_DTYPES = {"FLOAT": "FP32", "FLOAT16": "FP16", "DOUBLE": "FP64", "BFLOAT16": "BF16"}
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ExportOptions:
    """Where and how to write.

    max_batch_rows: the most rows that one run of a model takes. force: replace a repository that is there.
    parity_limit: the largest difference between composed and whole, in units of the output's spread.
    """

    out: Path
    max_batch_rows: int = 64
    force: bool = False
    parity_limit: float = 1e-4


@dataclass(frozen=True)
class ExportReport:
    """What was exported: the repository, the plan it follows, the parity error of each task, and what the user should know."""

    repository: Repository
    plan: SharingPlan
    chains: Mapping[str, Chain]
    parity_errors: Mapping[str, float]
    remarks: Mapping[str, str]


def export_repository(
    sources: Sources, options: ExportOptions, progress: Progress = lambda what, done, total: None
) -> ExportReport:
    """Write the model repository of `sources`. `progress(what, done, total)` is called as work gets done.

    Raises ExportError, one of the errors of `exporter.errors` or of tuning's; then nothing has been written.
    """
    check_names(sources.tasks)
    check_output(options.out, options.force)
    with tempfile.TemporaryDirectory(prefix="espalier-") as scratch:
        analysed = _Analysed(Path(scratch))
        analysed.read(sources, progress)
        plan = make_sharing_plan(list(analysed.tasks.values()), analysed.backbone)
        with written_whole(options.out, options.force) as folder:
            _write_segments(plan, analysed, folder, progress)
            repository = _write_configs(plan, analysed, folder, options.max_batch_rows)
            errors = _check_parity(repository, analysed, options.parity_limit, progress)
    return ExportReport(replace(repository, path=options.out), plan, analysed.tasks, errors, analysed.remarks())


class _Analysed:
    """The task models, read and reduced to their chains; their canonical graphs wait on disk."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self.tasks: dict[str, Chain] = {}
        self.models: dict[str, TaskModel] = {}  # without their graphs
        self.backbone: Chain | None = None

    def read(self, sources: Sources, progress: Progress) -> None:
        """Read all of `sources` and check that they belong together."""
        loaders: dict[str, LoadTaskModel] = {BACKBONE: sources.backbone} if sources.backbone else {}
        loaders |= sources.tasks
        for index, (name, load) in enumerate(loaders.items()):
            progress("Reading models", index, len(loaders))
            chain = self._read_one(name, load())
            if name == BACKBONE:
                self.backbone = chain
            else:
                self.tasks[name] = chain
                check_labels(name, chain, self.models[name].labels)
        progress("Reading models", len(loaders), len(loaders))
        check_together(list(self.tasks.values()), self.backbone)

    def _read_one(self, name: str, model: TaskModel) -> Chain:
        graph = canonicalise(model.model)
        chain = make_chain(name, graph)
        ir.save(graph, self.whole_model(name))
        self.models[name] = replace(model, model=ir.Model(ir.Graph((), (), nodes=()), ir_version=graph.ir_version))
        return chain

    def whole_model(self, name: str) -> Path:
        """Return the file of the canonical whole model."""
        return self._scratch / f"{name}.onnx"

    def remarks(self) -> dict[str, str]:
        """Return, by task, why it shares nothing."""
        chains = {BACKBONE: self.backbone} if self.backbone else self.tasks
        remarks = {}
        for name, chain in self.tasks.items():
            others = {key: (other, self.models[key]) for key, other in chains.items() if key != name}
            reason = explain_sharing(chain, self.models[name], others)
            if reason:
                remarks[name] = reason
        return remarks


def _write_segments(plan: SharingPlan, analysed: _Analysed, folder: Path, progress: Progress) -> None:
    by_chain: dict[str, list[PlannedSegment]] = {}
    for segment in plan.segments.values():
        by_chain.setdefault(segment.chain, []).append(segment)
    done = 0
    for chain, segments in by_chain.items():
        model = ir.load(analysed.whole_model(chain))
        for segment in segments:
            progress("Writing segments", done, len(plan.segments))
            extracted = extract_segment(model, segment.name, segment.blocks[0].start, segment.blocks[-1].end)
            ir.save(extracted, model_path(folder, segment.name))
            done += 1
    progress("Writing segments", done, len(plan.segments))


def _write_configs(plan: SharingPlan, analysed: _Analysed, folder: Path, max_batch_rows: int) -> Repository:
    segments = {name: _segment(planned, max_batch_rows) for name, planned in plan.segments.items()}
    tasks = {name: _task(name, plan, analysed, max_batch_rows) for name in plan.tasks}
    return write_configs(folder, segments, tasks)


def _segment(planned: PlannedSegment, max_batch_rows: int) -> Segment:
    blocks = planned.blocks
    return Segment(
        name=planned.name,
        input=_spec(SEGMENT_INPUT, blocks[0].start),
        output=_spec(SEGMENT_OUTPUT, blocks[-1].end),
        blocks=(blocks[0].index, blocks[-1].index),
        digest=planned.digest,
        max_batch_rows=max_batch_rows,
        macs=sum(block.macs for block in blocks),
        parameters=sum(block.parameters for block in blocks),
        weight_bytes=sum(block.weight_bytes for block in blocks),
        activation_bytes=blocks[-1].end.row_bytes,
        modules=_unique(module for block in blocks for module in block.modules),
        uncounted=tuple(sorted({operator for block in blocks for operator in block.uncounted})),
    )


def _task(name: str, plan: SharingPlan, analysed: _Analysed, max_batch_rows: int) -> Task:
    model, chain = analysed.models[name], analysed.tasks[name]
    steps = []
    for step in plan.tasks[name]:
        start = INPUT if step.start is chain.source else _tap_name(step.start)
        end = name if step.end is chain.blocks[-1].end else _tap_name(step.end)
        steps.append(Step(step.segment, start, end))
    return Task(
        name=name,
        steps=tuple(steps),
        input=_spec(INPUT, chain.source),
        output=_spec(name, chain.blocks[-1].end),
        max_batch_rows=max_batch_rows,
        labels=model.labels,
        preprocessing=model.preprocessing,
        provenance=model.provenance,
    )


def _tap_name(tap: Tap) -> str:
    return f"tap-{tap.address[:16]}"


def _spec(name: str, tap: Tap) -> TensorSpec:
    return TensorSpec(name, _V2_DTYPES.get(tap.dtype, tap.dtype), tap.shape)


def _check_parity(repository: Repository, analysed: _Analysed, limit: float, progress: Progress) -> dict[str, float]:
    checker = ParityChecker(repository)
    errors = {}
    for index, (name, chain) in enumerate(analysed.tasks.items()):
        progress("Checking composed against whole", index, len(analysed.tasks))
        errors[name] = checker.error(name, analysed.whole_model(name), chain.source.name, sample_rows(chain.source, rows=4))
        if not errors[name] <= limit:  # NaN is an error, too
            raise ParityError(name, errors[name], limit)
    progress("Checking composed against whole", len(errors), len(errors))
    return errors


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))
