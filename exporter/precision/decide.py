"""Decides which tasks are in int8, and how far: quantises their segments, judges the tasks, and checks what was chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from contract.repository import Repository, Task
from contract.repository.reference import at_reference
from contract.repository.rows import largest_error
from contract.repository.sample import sample_inputs
from contract.units import listed
from exporter.build.reference_outputs import COARSE_TOLERANCE, SAMPLE_ROWS, record_of
from exporter.errors import ParityError
from exporter.graph.extract import rejoin
from exporter.precision.errors import CannotQuantise
from exporter.precision.examples import Examples, PrecisionOptions, Rows, Variant
from exporter.precision.judge import Verdict, judge
from exporter.precision.renamed import on_segments
from exporter.precision.runs import Runs
from exporter.precision.segments import Int8, Progress, SegmentQuantiser
from exporter.sources.onnx_file import load_onnx
from exporter.sources.runtime import open_session, run_session

_LIMIT = 1e-4  # between the composed segments and the quantised whole, both as they are written, in units of the spread


@dataclass(frozen=True)
class Decision:
    """tasks: those that were to be in int8, on the segments that were chosen, with their records. int8: those segments, by their names."""

    tasks: Mapping[str, Task] = field(default_factory=dict)
    int8: Mapping[str, Int8] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    remarks: tuple[str, ...] = ()


def decide(
    fp32: Repository,
    tasks: Mapping[str, Task],
    options: PrecisionOptions,
    there: Mapping[str, Int8],
    folder: Path,
    progress: Progress,
) -> Decision:
    """Return what becomes of `tasks`, versions on segments of `fp32`, when they are to be in int8.

    there: segments in int8 that are used again, by their names in fp32. folder: where models are written.
    Raises CannotQuantise, NoQuantiser, ParityError, and what `options.examples` raises.
    """
    assert options.examples is not None
    for task in tasks.values():
        _check_form(task)
    examples = {key: options.examples(task) for key, task in tasks.items()}
    quantiser = SegmentQuantiser(fp32, folder, there, progress)
    quantiser.quantise([(task, examples[key].rows) for key, task in tasks.items()])
    names = {name: made.segment.name for name, made in quantiser.made.items()}
    int8 = {made.segment.name: made for made in quantiser.made.values()}
    judged = _Judging(fp32, tasks, examples, names, partial(_file_of, fp32, int8), progress)
    verdicts = judged.verdicts(options.max_drop)
    chosen = {key: judged.variants[key].get(verdict.variant, tasks[key]) for key, verdict in verdicts.items()}
    checked = {
        key: task if task.steps == tasks[key].steps else _checked(task, partial(_file_of, fp32, int8))
        for key, task in chosen.items()
    }
    remarks = dict.fromkeys(remark for one in examples.values() for remark in one.remarks)
    return Decision(checked, int8, tuple(verdicts.values()), tuple(remarks))


def _check_form(task: Task) -> None:
    """Raise CannotQuantise unless `task` takes one tensor of fixed sizes."""
    if task.text is not None:
        raise CannotQuantise(task.name, "takes texts, and there is no way yet to give texts to calibrate with; leave it in fp32")
    if len(task.inputs) > 1:
        named = listed([spec.name for spec in task.inputs])
        raise CannotQuantise(task.name, f"takes several inputs ({named}), where data has one; leave it in fp32")
    if any(size < 0 for size in task.inputs[0].shape):
        sizes = listed([name for name in task.inputs[0].axes if name])
        raise CannotQuantise(task.name, f"takes free sizes ({sizes}); export it with fixed ones, or leave it in fp32")


def _file_of(fp32: Repository, int8: Mapping[str, Int8], name: str) -> Path:
    return int8[name].file if name in int8 else fp32.model_file(name)


class _Judging:
    """variants: of each task, those that are tried, in this order."""

    def __init__(
        self,
        fp32: Repository,
        tasks: Mapping[str, Task],
        examples: Mapping[str, Examples],
        names: Mapping[str, str],
        file_of: Callable[[str], Path],
        progress: Progress,
    ) -> None:
        self._tasks, self._examples, self._progress = tasks, examples, progress
        self._runs = Runs(file_of)
        shared = _shared(fp32)
        self.variants = {key: _variants(task, names, shared) for key, task in tasks.items()}

    def verdicts(self, max_drop: float) -> dict[str, Verdict]:
        """Return what becomes of each task."""
        groups: dict[Rows, list[str]] = {}
        for key in self._tasks:
            groups.setdefault(self._examples[key].rows, []).append(key)
        found: dict[str, Verdict] = {}
        for place, (rows, keys) in enumerate(groups.items()):
            self._progress("Judging tasks", place, len(groups))
            found |= self._of_rows(rows, keys, max_drop)
        self._progress("Judging tasks", len(groups), len(groups))
        return {key: found[key] for key in self._tasks}

    def _of_rows(self, rows: Rows, keys: Collection[str], max_drop: float) -> dict[str, Verdict]:
        asked = {f"fp32 {key}": self._tasks[key] for key in keys}
        asked |= {f"{variant} {key}": task for key in keys for variant, task in self.variants[key].items()}
        answers = self._runs.answers(asked, rows.judge)
        found = {}
        for key in keys:
            variants = {variant: answers[f"{variant} {key}"] for variant in self.variants[key]}
            verdict = judge(self._tasks[key].name, self._examples[key], answers[f"fp32 {key}"], variants, max_drop)
            nothing = "none of its segments multiplies by constants in float32, or it is in int8 as it was given"
            found[key] = verdict if variants else replace(verdict, reason=nothing)
        return found


def _shared(fp32: Repository) -> frozenset[str]:
    """Return the segments of `fp32` that several tasks run, or are to run."""
    tasks = fp32.tasks.values()
    counts = Counter(name for task in tasks for name in {step.segment for version in task.versions for step in version.steps})
    return frozenset(name for name, count in counts.items() if count > 1 or name.startswith("trunk-"))


def _variants(task: Task, names: Mapping[str, str], shared: Collection[str]) -> dict[Variant, Task]:
    own = {step.segment for step in task.steps}
    all_of_it = {name: int8 for name, int8 in names.items() if name in own}
    trunk = {name: int8 for name, int8 in all_of_it.items() if name in shared}
    found: dict[Variant, Task] = {}
    if all_of_it:
        found["int8"] = on_segments(task, all_of_it)
    if trunk and len(trunk) < len(all_of_it):
        found["int8, branch in fp32"] = on_segments(task, trunk)
    return found


def _checked(task: Task, file_of: Callable[[str], Path]) -> Task:
    """Return `task` with the record of its answers in int8. Raises ParityError unless its segments compute what they do as one model."""
    (rows,) = sample_inputs(at_reference(task.inputs, task.sizes), SAMPLE_ROWS).values()
    whole = rejoin(task, {step.segment: load_onnx(file_of(step.segment), linked=True) for step in task.steps})
    expected = run_session(open_session(whole, optimised=False), {task.inputs[0].name: rows}, task.name)
    composed = Runs(file_of, optimised=False).answers({"it": task}, rows)["it"]
    error = largest_error(composed, list(expected))
    if not error <= _LIMIT:  # NaN is an error, too
        raise ParityError(task.name, error, _LIMIT, "the quantised whole", None, _LIMIT)
    runs = Runs(file_of)
    one, several = (runs.answers({"it": task}, part)["it"] for part in (rows[:1], rows))
    return replace(task, parity=record_of(one, several, COARSE_TOLERANCE))
