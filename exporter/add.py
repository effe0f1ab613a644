"""Adds tasks to a repository that is there: what is there stays as it is, as far as it is asked to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from contract.dtypes import Array
from contract.repository import Repository, Task, TensorSpec
from contract.repository.origin import Origin
from contract.repository.rows import largest_error
from contract.repository.tokenizers import TokenizerFiles, tokenizer_files
from contract.repository.versions import all_versions, inherited, replaced, staying, with_canary, with_steps
from contract.repository.write import Change, Waiting, changed, silent, write_models, write_rows
from exporter.build.additions import Addition, plan_anew, plan_beside, rows_of
from exporter.build.analysis import BACKBONE, Analysis, Progress
from exporter.build.kinds import check_kinds, check_scores
from exporter.build.parity import Compared, Look, Parity, ParityChecker, check_error, check_parity
from exporter.build.recorded_answers import check_recorded_answers
from exporter.build.reference_outputs import compute_reference_outputs, input_sizes, with_records
from exporter.build.repository_chains import RepositoryChains, read_repository_chains
from exporter.build.row_coupling import SegmentJudge
from exporter.build.scratch import scratch_folder
from exporter.build.shared_weights import StoredWeights
from exporter.build.text_padding import with_padding
from exporter.build.text_trial import check_texts
from exporter.build.texts import tokenizers_of, with_kept_text
from exporter.build.written_segments import WrittenSegments, write_segments
from exporter.errors import BadShare, CannotRun, DifferentAnswer, NothingBesideCanary, OtherInputs, TaskExists, UnlikeRepository
from exporter.graph.free.sizes import trials
from exporter.precision.examples import PrecisionOptions
from exporter.precision.originals import has_int8, write_originals
from exporter.precision.quantise import require_quantiser
from exporter.precision.report import PrecisionReport
from exporter.precision.write import change_in_int8, report_of
from exporter.sharing.check import check_names, check_output_names
from exporter.sharing.choose import CutOptions
from exporter.sharing.plan import SharingPlan
from exporter.sharing.reuse import Missed
from exporter.sources.remembered import remembered_then
from exporter.sources.task_model import Sources, Tuned


@dataclass(frozen=True)
class AddOptions:
    """recut: all tasks are cut anew, as an export of them would cut them; otherwise every segment that is there stays.

    replace: tasks of the same names are replaced, and kept as their previous versions. canary: instead, the new ones become canaries
    of those, with that share of the requests. parity_limit, coupled: as in ExportOptions. snap: as there; None: as the repository was
    exported; 0: for no blocks. cuts: how to cut anew; None: by the rule that the repository was cut by. precision: which one the tasks
    that come are to have, and with recut all.
    """

    recut: bool = False
    replace: bool = False
    parity_limit: float = 1e-4
    canary: float | None = None
    cuts: CutOptions | None = None
    coupled: bool = False
    snap: float | None = None
    precision: PrecisionOptions = field(default_factory=PrecisionOptions)


@dataclass(frozen=True)
class AddReport:
    """What was added.

    before: the tasks until then. kept, new: segments that stayed, and that came.
    missed: per new task, what it shares but computes itself for want of a cut.
    parity_errors: of the new tasks against their whole models, and of recut tasks against what they were before.
    inherited: per task that was there, what the new model lacks and has from the current version: preprocessing, labels.
    row_remarks: of new segments, whether the rows of a batch affect each other. stored, precision: as of
    ExportReport. snap: within which blocks took other weights because the export did so; None: it was given, or there is none.
    """

    before: Mapping[str, Task]
    repository: Repository
    plan: SharingPlan
    kept: tuple[str, ...]
    new: tuple[str, ...]
    missed: Mapping[str, Missed]
    parity_errors: Mapping[str, float]
    remarks: Mapping[str, str]
    inherited: Mapping[str, tuple[str, ...]]
    row_remarks: tuple[str, ...] = ()
    stored: StoredWeights = field(default_factory=StoredWeights)
    precision: PrecisionReport | None = None
    snap: float | None = None


def add_tasks(
    path: Path,
    sources: Sources,
    options: AddOptions,
    progress: Progress = lambda what, done, total: None,
    waiting: Waiting = silent,
) -> AddReport:
    """Add the tasks of `sources` to the repository at `path`, or none, if what is there is to be cut anew.

    `progress(what, done, total)` is called as work gets done. Segments that no task uses any more stay until `espalier gc`.
    Raises RepositoryError when `path` is no repository, ExportError otherwise; then the repository is as it was.
    """
    if sources.tasks or not options.recut:
        check_names(sources.tasks)
    if options.precision.precision == "int8":
        require_quantiser()
    with changed(path, waiting) as change, scratch_folder(path) as scratch:
        remembered = change.repository.origin.snap if options.snap is None and sources.tasks else None
        _check_places(change.repository, sources.tasks, options)
        _check_images(change.repository, sources.tuned)
        add = _add_in_int8 if options.precision.precision == "int8" or has_int8(change.repository) else _add
        report = add(change, sources, options, Analysis(scratch, options.snap or remembered or None), progress)
    return replace(report, repository=replace(report.repository, path=path), snap=remembered)


def _add(change: Change, sources: Sources, options: AddOptions, analysis: Analysis, progress: Progress) -> AddReport:
    """Build the next state of the repository, check it, and return what it is. Raises ExportError."""
    before = change.repository
    versions = all_versions(before.tasks, coming=sources.tasks)
    old = replace(before, tasks={name: replace(task, name=name) for name, task in versions.items()})
    repository_chains = read_repository_chains(old, analysis.store)
    check_recorded_answers(old, repository_chains.unproved)
    if options.recut:
        answers = staying(before.tasks, coming=sources.tasks, beside=options.canary is not None)
        addition = plan_anew(old, repository_chains, answers, sources, options.cuts, analysis, progress)
    else:
        addition = plan_beside(old, repository_chains, sources, analysis, progress)
    recut = {name: replace(task, steps=addition.steps[name]) for name, task in versions.items()}
    tokenizers = tokenizers_of(analysis.models.values()) | tokenizer_files(before)
    refusing = {name for name, model in analysis.models.items() if model.refuses_images}
    coming, taken = _inherited(before.tasks, addition.coming, tokenizers, refusing)
    check_kinds(coming.values())
    references = compute_reference_outputs(coming, analysis, progress)
    coming = with_records(coming, references)
    check_scores(coming.values(), {name: found.outputs for name, found in references.items()})
    coming = with_padding(coming, references, tokenizers)
    tasks = _together(before.tasks, recut, coming, options.canary)
    check_output_names(version for task in tasks.values() for version in task.versions)
    write = partial(write_segments, change, addition.plan, analysis, repository_chains, rows_of(before), progress)
    origin, other_backbone = remembered_then(before.origin, sources.origin)
    repository, written = _write(change, [*tasks.values()], addition, partial(write, anew=options.recut), tokenizers, origin)
    judge = _judge(addition.plan, repository_chains, before, options.coupled)
    alone = replace(repository, tasks={**repository.tasks, **coming})
    parity = check_parity(alone, references, options.parity_limit, progress, judge.look)
    check_texts(alone, coming, analysis.models)
    again = _check_recut(old, replace(repository, tasks=recut), written.again, options.parity_limit, judge.look)
    segments = addition.plan.segments
    return AddReport(
        before=before.tasks,
        repository=write_rows(change.folder, repository, judge.rows),
        plan=addition.plan,
        kept=tuple(name for name in segments if name in before.segments),
        new=tuple(name for name in segments if name not in before.segments),
        missed=addition.missed,
        parity_errors={**parity.errors, **again.errors},
        remarks=_remarks(analysis, parity, again, sources.tasks, other_backbone),
        inherited=taken,
        row_remarks=judge.remarks,
        stored=written.stored,
    )


def _add_in_int8(change: Change, sources: Sources, options: AddOptions, analysis: Analysis, progress: Progress) -> AddReport:
    """Add to what the repository is in fp32, where all is checked as ever, and take what comes of that in its place. Raises ExportError."""
    before, folder = change.repository, analysis.store.folder / "precision"
    (folder / "fp32").mkdir(parents=True)
    there = write_originals(before.exported, folder / "fp32")
    report = add_tasks(there.path, sources, replace(options, precision=PrecisionOptions("fp32")), progress)
    fp32 = replace(report.repository, path=there.path)
    repository, decision = change_in_int8(change, fp32, sources.tasks, options.precision, folder, progress, anew=options.recut)
    used = [*dict.fromkeys(step.segment for task in repository.tasks.values() for step in task.steps)]
    return replace(
        report,
        before=before.tasks,
        repository=repository,
        kept=tuple(name for name in used if name in before.segments),
        new=tuple(name for name in used if name not in before.segments),
        precision=report_of(decision, repository, options.precision.max_drop),
    )


def _check_places(repository: Repository, names: Collection[str], options: AddOptions) -> None:
    """Raise ExportError unless tasks of the `names` may come as `options` say."""
    if options.canary is not None and not 0 < options.canary < 1:
        raise BadShare(options.canary)
    for name in names:
        if options.canary is not None:
            if name not in repository.tasks:
                raise NothingBesideCanary(name)
        elif name in repository.tasks and not options.replace:
            raise TaskExists(name)


def _check_images(repository: Repository, tuned: Mapping[str, Tuned]) -> None:
    """Raise UnlikeRepository for a task that was tuned on other images than those on its backbone that are there take."""
    for name, task in tuned.items():
        for there in repository.tasks.values():
            if there.preprocessing is None or there.provenance.get("backbone_sha256") != task.backbone_sha256:
                continue
            if fields := task.preprocessing.differing(there.preprocessing):
                raise UnlikeRepository(name, task.preprocessing.words(fields), there.name, there.preprocessing.words(fields))


def _together(
    before: Mapping[str, Task], recut: Mapping[str, Task], coming: Mapping[str, Task], canary: float | None
) -> dict[str, Task]:
    """Return the tasks as they are when `coming` have come. recut: all versions of those `before`, as they are then."""
    steps = {(task.name, task.version): task.steps for task in recut.values()}
    tasks = {name: with_steps(task, steps) for name, task in before.items()}
    return tasks | {name: _placed(tasks.get(name), task, canary) for name, task in coming.items()}


def _inherited(
    before: Mapping[str, Task], coming: Mapping[str, Task], tokenizers: TokenizerFiles, refusing: Collection[str]
) -> tuple[dict[str, Task], dict[str, tuple[str, ...]]]:
    """Return `coming` with what those have from the tasks `before` of their names, and what that is. Raises TokenizerDoesNotFit.

    refusing: tasks whose files say that images come otherwise than can be done, so that they are not to come as before.
    """
    tasks, taken = dict(coming), {}
    for name in coming.keys() & before.keys():
        tasks[name], words = inherited(before[name], coming[name], images=name not in refusing)
        if words:
            taken[name] = words
        if coming[name].text is None:
            tasks[name] = with_kept_text(tasks[name], before[name], tokenizers)
    return tasks, taken


def _placed(task: Task | None, new: Task, canary: float | None) -> Task:
    """Return what becomes of `task` when `new` comes. Raises OtherInputs, DifferentAnswer."""
    if task is None:
        return new
    if canary is None:
        return replaced(task, new)
    if new.inputs != task.inputs:
        raise OtherInputs(task.name, _tensors(new.inputs), _tensors(task.inputs))
    if new.outputs != task.outputs:
        raise DifferentAnswer(task.name, _tensors(new.outputs), _tensors(task.outputs))
    return with_canary(task, new, canary)


def _tensors(specs: Iterable[TensorSpec]) -> str:
    return " and ".join(f"{spec.dtype} rows of shape {list(spec.shape)} in {spec.name!r}" for spec in specs)


def _write(
    change: Change,
    tasks: Sequence[Task],
    addition: Addition,
    write: Callable[[], WrittenSegments],
    tokenizers: TokenizerFiles,
    origin: Origin,
) -> tuple[Repository, WrittenSegments]:
    before, plan = change.repository, addition.plan
    for name in before.segments:
        change.keep(name)
    segments = write()
    unchanged = [task.name for task in tasks if task == before.tasks.get(task.name)]
    for name in unchanged:
        change.keep(name)
    rewritten = {task.name: task for task in tasks if task.name not in unchanged}
    write_models(change.folder, segments.described, rewritten, tokenizers)
    return change.write_all_tasks(tasks, plan.cuts_left_out, addition.cut_rule, addition.not_shared, origin), segments


def _judge(plan: SharingPlan, repository_chains: RepositoryChains, before: Repository, coupled: bool) -> SegmentJudge:
    """Return the judge of the segments that come. What is a part of a segment that was taken as coupled needs no leave again."""
    coming = {name: segment for name, segment in plan.segments.items() if name not in before.segments}
    patterns = repository_chains.patterns
    taken = {block.digest for name in patterns if before.segments[name].rows == "coupled" for block in patterns[name].blocks}
    parts = [name for name, segment in coming.items() if not taken.isdisjoint(block.digest for block in segment.blocks)]
    return SegmentJudge(coming, coming if coupled else parts)


def _check_recut(old: Repository, new: Repository, written: frozenset[str], limit: float, look: Look) -> Parity:
    """Return how tasks whose steps changed, or use one of the segments `written` again, compare with what they were. Raises ParityError."""
    before, after = ParityChecker(old), ParityChecker(new, look)
    errors: dict[str, float] = {}
    remarks: dict[str, list[str]] = {}
    for name, task in old.tasks.items():
        if task.steps == new.tasks[name].steps and written.isdisjoint(step.segment for step in task.steps):
            continue
        inputs = before.sample(name)
        usual = before.compose(name, inputs)
        found = [largest_error(after.compose(name, inputs), usual)]
        for rows in (before.sample(name, sizes) for sizes in trials(input_sizes(task))):
            try:
                expected = before.compose(name, rows)
            except CannotRun:  # it takes sizes in steps
                continue
            found.append(largest_error(after.compose(name, rows), expected, usual))
        errors[name] = float(np.max(found))
        compared = Compared("the segments until now", partial(_noise, (old, new), name, inputs))
        remark = check_error(new, name, errors[name], limit, compared)
        remarks[name] = [remark] if remark else []
    return Parity(errors, remarks)


def _noise(repositories: Iterable[Repository], task: str, inputs: Sequence[Array]) -> float | None:
    """Return the largest difference that ONNX Runtime's optimisations make to `task` in one of `repositories`, None if it needs them."""
    try:
        return max(_difference_of_optimising(repository, task, inputs) for repository in repositories)
    except CannotRun:
        return None


def _difference_of_optimising(repository: Repository, task: str, inputs: Sequence[Array]) -> float:
    plain, optimised = (ParityChecker(repository, optimised=way).compose(task, inputs) for way in (False, True))
    return largest_error(plain, optimised)


def _remarks(analysis: Analysis, coming: Parity, recut: Parity, names: Collection[str], other_backbone: str) -> dict[str, str]:
    """Return what to know of the tasks `names`, which come, of the backbone, and of tasks that were cut anew.

    other_backbone: what to know of one that is not the repository's, or "".
    """
    found = {name: remark for name, remark in analysis.remarks(coming.remarks).items() if name in (*names, BACKBONE)}
    if other_backbone:
        found[BACKBONE] = " It ".join(filter(None, (other_backbone, found.get(BACKBONE))))
    return {name: " It ".join(sentences) for name, sentences in recut.remarks.items() if sentences} | found
