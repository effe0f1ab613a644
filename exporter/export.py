"""The exporter's pipeline: task models in, one model repository out.

Read each model once (canonical form, digest chain), decide the sharing plan, extract the segments, write their configurations, check
every task against its whole model, and only then let the repository appear. One model's weights are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from exporter.analysis import Analysis, Progress
from exporter.aside import Waiting, recover, silent
from exporter.chain import Chain
from exporter.check import check_names, check_output_names
from exporter.choose import CutOptions
from exporter.describe import describe_segment, describe_task
from exporter.extract import extract_segment
from exporter.parity import ParityChecker, check_error
from exporter.planning import PlannedSegment, SharingPlan, make_sharing_plan
from exporter.scratch import scratch_folder
from exporter.sources import Sources
from exporter.store import save_with_weights
from exporter.wholes import WholeAnswer, answers_of_wholes, with_records
from exporter.write import check_output, model_path, write_configs, written_whole
from serving.repository import Repository


@dataclass(frozen=True)
class ExportOptions:
    """Where and how to write.

    max_batch_rows: the most rows that one run of a model takes. force: replace a repository that is there.
    parity_limit: the largest difference between composed and whole, in units of the output's spread, for float32.
    cuts: how to choose them.
    """

    out: Path
    max_batch_rows: int = 64
    force: bool = False
    parity_limit: float = 1e-4
    cuts: CutOptions = field(default_factory=CutOptions)


@dataclass(frozen=True)
class ExportReport:
    """What was exported: the repository, the plan it follows, the parity error of each task, and what the user should know."""

    repository: Repository
    plan: SharingPlan
    chains: Mapping[str, Chain]
    parity_errors: Mapping[str, float]
    remarks: Mapping[str, str]


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
    check_names(sources.tasks)
    recover(options.out, waiting)
    check_output(options.out, options.force)  # before hours of work; and again when it is this writer's turn
    with scratch_folder() as scratch:
        analysis = Analysis(scratch)
        analysis.read(sources, progress)
        plan = make_sharing_plan(list(analysis.tasks.values()), analysis.backbone, options.cuts)
        segments = {name: describe_segment(planned, options.max_batch_rows) for name, planned in plan.segments.items()}
        tasks = {
            name: describe_task(chain, plan.tasks[name], analysis.models[name], options.max_batch_rows)
            for name, chain in analysis.tasks.items()
        }
        check_output_names(tasks.values())
        wholes = answers_of_wholes(tasks, analysis, progress)
        with written_whole(options.out, options.force, waiting) as folder:
            write_segments(plan.segments.values(), analysis, folder, progress)
            repository = write_configs(folder, segments, with_records(tasks, wholes), plan.cuts_left_out)
            errors = check_parity(repository, wholes, options.parity_limit, progress)
    return ExportReport(replace(repository, path=options.out), plan, analysis.tasks, errors, analysis.remarks())


def write_segments(segments: Iterable[PlannedSegment], analysis: Analysis, folder: Path, progress: Progress) -> None:
    """Write the models of `segments`, each from the network that the plan names."""
    segments = list(segments)
    for index, segment in enumerate(segments):
        progress("Writing segments", index, len(segments))
        network = analysis.network_of(segment.chain, segment.blocks[0])
        extracted = extract_segment(network.model, segment.name, segment.inputs, segment.outputs)
        save_with_weights(extracted, model_path(folder, segment.name))
    progress("Writing segments", len(segments), len(segments))


def check_parity(repository: Repository, wholes: Mapping[str, WholeAnswer], limit: float, progress: Progress) -> dict[str, float]:
    """Return the error of each of the tasks of `wholes` against its whole model. Raises ParityError when one is over `limit`."""
    checker = ParityChecker(repository)
    tasks = list(wholes)
    errors: dict[str, float] = {}
    for index, name in enumerate(tasks):
        progress("Checking composed against whole", index, len(tasks))
        errors[name] = checker.error(name, wholes[name])
        check_error(repository, name, errors[name], limit)
        checker.keep_only(tasks[index + 1 :])
    progress("Checking composed against whole", len(tasks), len(tasks))
    return errors
