"""What whole task models answer: what their composed segments must answer, too, and what the repository records of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import onnx_ir as ir

from contract.dtypes import Array
from contract.kinds.kind import Scores
from contract.repository import Task
from contract.repository.free_sizes import FreeSize, references_of
from contract.repository.record import OutputRecord, ParityRecord, recorded_places
from contract.repository.reference import at_sizes
from contract.repository.rows import largest_error, spread_of
from contract.repository.sample import sample_inputs
from exporter.build.analysis import Analysis, Progress
from exporter.build.kinds import found_scores
from exporter.build.near_weights import explain_taken
from exporter.build.scores import scores_of
from exporter.errors import AnotherForm, CannotRun
from exporter.graph.free.sizes import size_at, trials
from exporter.sources.whole import WholeNetwork, WholeSession

SAMPLE_ROWS = 4
_SNAP_ROWS = 16
# In units of an output's scale. Factors rounded to 11 bits, as TensorFloat-32 and half precision do, moved the outputs of five networks by
# 0.5 % at most, factors rounded to 8 bits, as bfloat16 does, by 5 %; float32 in another order, by two millionths.
TOLERANCE, COARSE_TOLERANCE = 0.02, 0.1
_COARSE_DTYPES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class ReferenceOutputs:
    """The outputs of a whole network for SAMPLE_ROWS rows of sample input, each of shape (n, ...), and the record of the first row.

    whole: the network. tolerance: that of the record. scores: what the only output is, if it has scores. remark: what was run instead of
    the network as it was given, if something was. elsewhere: the same outputs at other free sizes than the references, with these.
    refused: such sizes at which the network does not run, though they are within its limits.
    """

    outputs: tuple[Array, ...]
    record: ParityRecord | None
    whole: WholeNetwork
    tolerance: float
    scores: Scores = ""
    remark: str = ""
    elsewhere: tuple[tuple[Mapping[str, int], tuple[Array, ...]], ...] = ()
    refused: tuple[Mapping[str, int], ...] = ()

    def noise(self, rows: Sequence[Array]) -> float | None:
        """Return how far the network lies from itself for `rows`, which `outputs` are for, when ONNX Runtime does not optimise it.

        In units of the outputs' spread; None when it cannot be run so.
        """
        try:
            return largest_error(WholeSession(self.whole, optimised=False).run(rows), self.outputs)
        except CannotRun:
            return None


def compute_reference_outputs(tasks: Mapping[str, Task], analysis: Analysis, progress: Progress) -> dict[str, ReferenceOutputs]:
    """Return what the whole network of each of `tasks` answers, as it was given, or if it cannot be run so, in canonical form.

    Raises CannotRun when ONNX Runtime cannot run one in either, AnotherForm when one answers something of another shape than its task,
    BadModel when a file was changed since it was read.
    """
    answers = {}
    for index, (name, task) in enumerate(tasks.items()):
        progress("Running whole networks", index, len(tasks))
        tolerance = COARSE_TOLERANCE if _is_coarse(analysis.models[name].model) else TOLERANCE
        answer = _answer(task, analysis, tolerance)
        answers[name] = replace(answer, scores=_scores(task, analysis.models[name].model, answer.outputs))
    progress("Running whole networks", len(tasks), len(tasks))
    return answers


def reference_outputs_of(task: Task, whole: WholeNetwork, tolerance: float = TOLERANCE) -> ReferenceOutputs:
    """Return what `whole`, the network of `task`, answers. Raises CannotRun, AnotherForm."""
    session = WholeSession(whole)
    sizes = references_of(task.sizes)
    rows = [*sample_inputs(at_sizes(task.inputs, sizes), SAMPLE_ROWS).values()]
    outputs = session.run(rows)
    _check_form(task, whole, outputs, sizes)
    # One row by itself, as a server runs it: a network that is quantised as it runs rounds by what is in the batch.
    one = session.run([values[:1] for values in rows])
    record = record_of(one, outputs, tolerance)
    tried = list(_elsewhere(task, session, whole))
    elsewhere = tuple((sizes, found) for sizes, found in tried if found is not None)
    refused = tuple(sizes for sizes, found in tried if found is None)
    return ReferenceOutputs(outputs, record, whole, tolerance, elsewhere=elsewhere, refused=refused)


def _elsewhere(
    task: Task, session: WholeSession, whole: WholeNetwork
) -> Iterator[tuple[Mapping[str, int], tuple[Array, ...] | None]]:
    """Yield other free sizes within the limits of the network, and its outputs there, None where it does not run."""
    for sizes in trials(input_sizes(task)):
        try:
            outputs = session.run([*sample_inputs(at_sizes(task.inputs, sizes), SAMPLE_ROWS).values()])
        except CannotRun:  # it takes sizes in steps
            yield sizes, None
            continue
        _check_form(task, whole, outputs, sizes)
        yield sizes, outputs


def input_sizes(task: Task) -> dict[str, FreeSize]:
    """Return what is known of the sizes that a client of `task` chooses."""
    return {name: task.sizes[name] for spec in task.inputs for name in spec.axes if name}


def _check_form(task: Task, whole: WholeNetwork, outputs: Sequence[Array], sizes: Mapping[str, int]) -> None:
    for name, output, spec in zip(whole.outputs, outputs, task.outputs, strict=True):
        axes = zip(spec.shape, spec.axes or ("",) * len(spec.shape), output.shape[1:], strict=False)
        expected = tuple((size_at(axis, sizes) or given) if axis else size for size, axis, given in axes)
        if output.shape != (SAMPLE_ROWS, *expected) or len(output.shape) != len(spec.shape) + 1:
            raise AnotherForm(task.name, name, output.shape, (SAMPLE_ROWS, *expected))


def _answer(task: Task, analysis: Analysis, tolerance: float) -> ReferenceOutputs:
    if (near := analysis.snapped.get(task.name)) is not None:
        snapped = replace(analysis.whole_in_canonical_form(task.name), what="the network with the weights that it took")
        remark = explain_taken(near, _change(task, analysis, snapped))
        return replace(reference_outputs_of(task, snapped, tolerance), remark=remark)
    try:
        return reference_outputs_of(task, analysis.whole(task.name), tolerance)
    except CannotRun as error:
        canonical = analysis.whole_in_canonical_form(task.name)
        remark = f"was compared with its canonical form, and not as it was given: {error}"
        return replace(reference_outputs_of(task, canonical, tolerance), remark=remark)


def _change(task: Task, analysis: Analysis, snapped: WholeNetwork) -> str:
    """Return how the answers of `snapped` differ from those of the network as it was given, in a clause."""
    rows = [*sample_inputs(at_sizes(task.inputs, references_of(task.sizes)), _SNAP_ROWS).values()]
    what = f"{_SNAP_ROWS} rows of the sample that every export takes, which are no images of the task's"
    try:
        before, after = (WholeSession(whole).run(rows) for whole in (analysis.whole(task.name), snapped))
    except CannotRun as error:
        return f"by how much its answers change is not known: {error}"
    found = f"by that its answers change by {largest_error(after, before):.1e} of their spread at most, on {what}"
    if len(before) == 1 and before[0].ndim == 2 and before[0].shape[1] > 1:
        same = int((before[0].argmax(axis=1) == after[0].argmax(axis=1)).sum())
        found += f", and the largest stays the largest in {same} of {_SNAP_ROWS}"
    return found


def with_records(tasks: Mapping[str, Task], answers: Mapping[str, ReferenceOutputs]) -> dict[str, Task]:
    """Return `tasks` with the records of their whole networks, and what their outputs are."""
    return {name: replace(task, parity=answers[name].record, scores=answers[name].scores) for name, task in tasks.items()}


def _scores(task: Task, model: ir.Model, outputs: Sequence[Array]) -> Scores:
    found = found_scores(task, outputs)
    if found is None:
        return ""
    place = [spec.name for spec in task.outputs].index(found[0])
    return scores_of(model.graph.outputs[place], found[1], is_part=found[1].size < outputs[place].size)


def record_of(one: Sequence[Array], several: Sequence[Array], tolerance: float) -> ParityRecord | None:
    """Return what is recorded of the answers to `one` row, of (1, ...); `several` tell how much they vary. None: nothing can be."""
    records = tuple(_record(row[0], rows) for row, rows in zip(one, several, strict=True))
    return ParityRecord(records, tolerance) if any(records) else None


def _record(row: Array, rows: Array) -> OutputRecord | None:
    """Return what is recorded of an output's `row`; `rows` tell how much it varies.

    That is not less than a tenth of its largest value: rounding grows with values, however little they vary. Numbers that are no
    fractions are left out, because a rounding error that decides between two classes makes any difference.
    """
    values = row.reshape(-1).astype(np.float64)
    if row.dtype.kind != "f" or not np.isfinite(values).all():
        return None
    scale = max(spread_of(rows), float(np.abs(values).max(initial=0.0)) / 10)
    picked = values[recorded_places(values.size)]
    return OutputRecord(tuple(_short(value, scale) for value in picked), float(f"{scale:.3g}"))


def _short(value: float, scale: float) -> float:
    """Return `value` to a hundred-thousandth of `scale`, which is far less than any tolerance: the last digits depend on the machine."""
    return round(float(value), 5 - int(np.floor(np.log10(scale)))) if scale else 0.0


def _is_coarse(model: ir.Model) -> bool:
    """Return whether the network computes with fewer bits than float32 has."""
    if any(
        value.const_value is not None and value.const_value.dtype in _COARSE_DTYPES for value in model.graph.initializers.values()
    ):
        return True
    nodes = chain(model.graph.all_nodes(), *(function.all_nodes() for function in model.functions.values()))
    return any("Quantize" in node.op_type or node.op_type.endswith("Integer") for node in nodes)
