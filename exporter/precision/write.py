"""Writes repositories with segments in int8: each with the segment in fp32 beside it, whose place it takes."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from contract.repository import Repository, Segment, Task
from contract.repository.model import FP32_FOLDER
from contract.repository.tokenizers import tokenizer_files
from contract.repository.write import Change, link_tree, model_path, write_all_tasks, write_models
from exporter.precision.decide import Decision, decide
from exporter.precision.errors import DamagedInt8, NeedsPrecision
from exporter.precision.examples import PrecisionOptions
from exporter.precision.originals import original, with_versions
from exporter.precision.renamed import on_segments
from exporter.precision.report import PrecisionReport, explain_sharing
from exporter.precision.segments import Int8, Progress, is_as_named


@dataclass(frozen=True)
class _Precisely:
    """A repository as it is to be. tasks: with all their versions. int8: segments that may come, by their names."""

    fp32: Repository
    tasks: Mapping[str, Task]
    int8: Mapping[str, Int8]

    def write_segments(self, folder: Path, there: Collection[str]) -> dict[str, Segment]:
        """Write what the tasks run into the repository in `folder`, but for what is `there`; return those that are to be recorded."""
        described = {}
        for name in dict.fromkeys(_segments(self.tasks.values())):
            if name in there:
                continue
            if name not in self.int8:
                link_tree(self.fp32.path / name, folder / name)
                continue
            described[name] = self.int8[name].segment
            shutil.copyfile(self.int8[name].file, model_path(folder, name))
            link_tree(self.fp32.path / described[name].stands_for, folder / name / FP32_FOLDER)
        return described


def write_in_int8(fp32: Repository, folder: Path, decision: Decision) -> Repository:
    """Write `fp32`, whose tasks were decided upon, into the empty `folder`; return what is there then."""
    precisely = _Precisely(fp32, {**fp32.tasks, **decision.tasks}, decision.int8)
    segments = precisely.write_segments(folder, ())
    write_models(folder, segments, precisely.tasks, tokenizer_files(fp32))
    return write_all_tasks(folder, precisely.tasks.values(), fp32.cuts_left_out, fp32.cut_rule, fp32.not_shared, fp32.origin)


def report_of(decision: Decision, repository: Repository, max_drop: float) -> PrecisionReport:
    """Return what is to be said of `decision`, which led to `repository`."""
    return PrecisionReport(decision.verdicts, decision.remarks, max_drop, explain_sharing(repository, repository.tasks))


def change_in_int8(
    change: Change,
    fp32: Repository,
    coming: Collection[str],
    options: PrecisionOptions,
    folder: Path,
    progress: Progress,
    *,
    anew: bool = False,
) -> tuple[Repository, Decision]:
    """Write into `change` what its repository becomes: what `fp32` is, in which `coming` have been added to what it was in fp32.

    Versions that are as they were keep their precision; the others are decided upon. anew: all are, and all that is in int8 comes anew.
    folder: where models are written. Raises NeedsPrecision, DamagedInt8, and what `decide` raises.
    """
    before = change.repository
    there = {} if anew and options.precision == "int8" else _there(before)
    stay, undecided = _stay(before, fp32, anew=anew and options.precision is not None)
    _check_said(before, undecided, coming, options)
    decision = Decision()
    if options.precision == "int8" and undecided:
        decision = decide(fp32, undecided, options, there, folder, progress)
    versions = {**stay, **undecided, **decision.tasks}
    tasks = {name: _together(task, versions) for name, task in fp32.tasks.items()}
    for name in before.segments:
        change.keep(name)
    segments = _Precisely(fp32, tasks, decision.int8).write_segments(change.folder, before.segments)
    unchanged = [name for name, task in tasks.items() if task == before.tasks.get(name)]
    for name in unchanged:
        change.keep(name)
    write_models(
        change.folder, segments, {name: task for name, task in tasks.items() if name not in unchanged}, tokenizer_files(fp32)
    )
    return change.write_all_tasks(tasks.values(), fp32.cuts_left_out, fp32.cut_rule, fp32.not_shared, fp32.origin), decision


def _there(before: Repository) -> dict[str, Int8]:
    """Return the segments in int8 of `before`, by their names in fp32; of two that stand for one, what a task runs. Raises DamagedInt8."""
    used = set(_segments(before.tasks.values()))
    found = {}
    for segment in sorted(before.segments.values(), key=lambda segment: segment.name in used):
        if segment.stands_for:
            file = before.model_file(segment.name)
            if not is_as_named(segment.name, file):
                raise DamagedInt8(segment.name)
            found[segment.stands_for] = Int8(segment, file)
    return found


def _stay(before: Repository, fp32: Repository, *, anew: bool) -> tuple[dict[str, Task], dict[str, Task]]:
    """Return the versions of tasks of `fp32` that keep their segments, on those, and the others, on theirs in fp32. anew: none does."""
    known = {_key(version): version for task in before.tasks.values() for version in task.versions}
    stay, others = {}, {}
    for version in (version for task in fp32.tasks.values() for version in task.versions):
        old = known.get(_key(version))
        if old is None or anew or not _runs_the_same(version, original(before, old)):
            others[_key(version)] = version
            continue
        names = {ours.segment: theirs.segment for ours, theirs in zip(version.steps, old.steps, strict=True)}
        same = on_segments(version, names)
        stay[_key(version)] = replace(same, steps=old.steps, parity=old.parity)
    return stay, others


def _runs_the_same(version: Task, other: Task) -> bool:
    return [step.segment for step in version.steps] == [step.segment for step in other.steps]


def _check_said(before: Repository, undecided: Mapping[str, Task], coming: Collection[str], options: PrecisionOptions) -> None:
    """Raise NeedsPrecision where nobody has said what becomes of tasks that would share what is in int8, or that were in int8."""
    if options.precision is not None:
        return
    stood_for = {segment.stands_for: segment.name for segment in before.segments.values() if segment.stands_for}
    in_int8 = {_key(version) for task in before.tasks.values() for version in task.versions if _in_int8(before, version)}
    tasks, segments = [], {}
    for key, task in undecided.items():
        shared = [stood_for[step.segment] for step in task.steps if step.segment in stood_for]
        if key in in_int8 or (task.name in coming and shared):
            tasks.append(task.name)
            segments.update(dict.fromkeys(shared))
    if tasks:
        raise NeedsPrecision(before.path, tasks, [*segments])


def _in_int8(repository: Repository, task: Task) -> bool:
    return any(repository.segments[step.segment].stands_for for step in task.steps)


def _together(task: Task, versions: Mapping[str, Task]) -> Task:
    canary = versions[_key(task.canary.task)] if task.canary else None
    return with_versions(task, versions[_key(task)], versions[_key(task.previous)] if task.previous else None, canary)


def _key(version: Task) -> str:
    return f"{version.name}@{version.version}"


def _segments(tasks: Iterable[Task]) -> list[str]:
    return [step.segment for task in tasks for version in task.versions for step in version.steps]
