"""The exporter's pipeline: task models in, one model repository out.

Read each model once (canonical form, digest chain), decide the sharing plan, extract the segments, write their configurations, check
every task against its whole model, and only then let the repository appear. One model's weights are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from contract.repository import Repository
from contract.repository.write import Waiting, check_output, recover, silent, write_configs, write_rows, written
from exporter.build.analysis import Analysis, Progress
from exporter.build.describe import describe_segment, describe_task
from exporter.build.kinds import check_kinds, check_scores
from exporter.build.near_weights import explain_near
from exporter.build.parity import check_parity
from exporter.build.reference_outputs import compute_reference_outputs, with_records
from exporter.build.row_coupling import SegmentJudge
from exporter.build.scratch import scratch_folder
from exporter.build.shared_weights import StoredWeights
from exporter.build.text_padding import with_padding
from exporter.build.text_trial import check_texts
from exporter.build.texts import tokenizers_of
from exporter.graph.chain import Chain
from exporter.precision.decide import decide
from exporter.precision.examples import PrecisionOptions
from exporter.precision.quantise import require_quantiser
from exporter.precision.report import PrecisionReport
from exporter.precision.write import report_of, write_in_int8
from exporter.sharing.check import check_names, check_output_names
from exporter.sharing.choose import CutOptions
from exporter.sharing.not_shared import find_not_shared
from exporter.sharing.plan import SharingPlan, make_sharing_plan
from exporter.sources.task_model import Sources


@dataclass(frozen=True)
class ExportOptions:
    """Where and how to write.

    max_batch_rows: the most rows that one run of a model takes. force: replace a repository that is there.
    parity_limit: the largest difference between composed and whole, in units of the output's spread, for float32.
    cuts: how to choose them. coupled: take networks whose rows affect each other, through whatever; each request is then one run.
    snap: let tasks take the backbone's weights (without one, the first task's) for blocks in which theirs differ by so much at most, as a
    part of the largest weight; None: for none. precision: which one the tasks are to have.
    """

    out: Path
    max_batch_rows: int = 64
    force: bool = False
    parity_limit: float = 1e-4
    cuts: CutOptions = field(default_factory=CutOptions)
    coupled: bool = False
    snap: float | None = None
    precision: PrecisionOptions = field(default_factory=PrecisionOptions)


@dataclass(frozen=True)
class ExportReport:
    """What was exported: the repository, the plan it follows, the parity error of each task, and what the user should know.

    remarks: by task, and of the backbone by that word. row_remarks: of segments, whether the rows of a batch affect each other.
    stored: what equal weights in several segments take. precision: what became of tasks that were to be in int8, None where none was;
    the plan, and the parity errors, are those of the networks in fp32.
    """

    repository: Repository
    plan: SharingPlan
    chains: Mapping[str, Chain]
    parity_errors: Mapping[str, float]
    remarks: Mapping[str, str]
    row_remarks: tuple[str, ...] = ()
    stored: StoredWeights = field(default_factory=StoredWeights)
    precision: PrecisionReport | None = None


def export_repository(
    sources: Sources,
    options: ExportOptions,
    progress: Progress = lambda what, done, total: None,
    waiting: Waiting = silent,
) -> ExportReport:
    """Write the model repository of `sources`. `progress(what, done, total)` is called as work gets done, `waiting`
    when another writer has the repository.

    Raises ExportError, one of the errors of `exporter.errors` or of tuning's; then nothing has been written.
    """
    if options.precision.precision == "int8":
        return _export_in_int8(sources, options, progress, waiting)
    check_names(sources.tasks)
    recover(options.out, waiting)
    check_output(options.out, options.force)  # before hours of work; and again when it is this writer's turn
    with scratch_folder(options.out) as scratch:
        analysis = Analysis(scratch, options.snap)
        analysis.read(sources, progress)
        cuts = replace(options.cuts, levels=analysis.levels)
        plan = make_sharing_plan([*analysis.tasks.values()], analysis.backbone, cuts, digest_of=analysis.digest_of)
        weights = analysis.shared_weights(plan.segments.values())
        segments = {
            name: describe_segment(planned, options.max_batch_rows, weights.of.get(name))
            for name, planned in plan.segments.items()
        }
        tasks = {
            name: describe_task(chain, plan.tasks[name], analysis.models[name], options.max_batch_rows)
            for name, chain in analysis.tasks.items()
        }
        check_output_names(tasks.values())
        check_kinds(tasks.values())
        not_shared = [*find_not_shared(analysis.segment_graphs(plan)), *explain_near(analysis.near), *analysis.scaled]
        references = compute_reference_outputs(tasks, analysis, progress)
        tasks = with_records(tasks, references)
        check_scores(tasks.values(), {name: found.outputs for name, found in references.items()})
        tokenizers = tokenizers_of(analysis.models.values())
        tasks = with_padding(tasks, references, tokenizers)
        with written(options.out, options.force, waiting) as folder:
            analysis.write_segments(plan.segments.values(), folder, weights, progress)
            repository = write_configs(
                folder,
                segments,
                tasks,
                plan.cuts_left_out,
                options.cuts.rule,
                tokenizers,
                not_shared=not_shared,
                origin=msgspec.structs.replace(sources.origin, snap=options.snap),
            )
            judge = SegmentJudge(plan.segments, plan.segments if options.coupled else ())
            parity = check_parity(repository, references, options.parity_limit, progress, judge.look)
            check_texts(repository, tasks, analysis.models)
            repository = write_rows(folder, repository, judge.rows)
    remarks = analysis.remarks(parity.remarks)
    return ExportReport(
        replace(repository, path=options.out), plan, analysis.tasks, parity.errors, remarks, judge.remarks, weights.stored
    )


def _export_in_int8(sources: Sources, options: ExportOptions, progress: Progress, waiting: Waiting) -> ExportReport:
    """Export in fp32 beside the repository, where all is checked as ever, and from there in int8."""
    require_quantiser()
    recover(options.out, waiting)
    check_output(options.out, options.force)
    with scratch_folder(options.out) as scratch:
        fp32 = replace(options, out=scratch / "fp32", force=False, precision=PrecisionOptions("fp32"))
        report = export_repository(sources, fp32, progress)
        there = report.repository
        decision = decide(there, there.tasks, options.precision, {}, scratch, progress)
        with written(options.out, options.force, waiting) as folder:
            repository = replace(write_in_int8(there, folder, decision), path=options.out)
    said = report_of(decision, repository, options.precision.max_drop)
    return replace(report, repository=repository, precision=said)
