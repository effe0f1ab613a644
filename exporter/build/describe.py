"""Turns a sharing plan into what the repository says: segments with their costs, tasks with their steps."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from contract.dtypes import dtype_of_onnx
from contract.repository import Segment, Step, Task, TensorSpec
from contract.repository import model as repository_model
from contract.repository.free_sizes import FreeSize
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, segment_tensor
from contract.tensor_names import original_names
from exporter.build.texts import with_text
from exporter.errors import SameOutputNames
from exporter.graph.chain import Chain, Tap, span_of
from exporter.graph.free.values import value_ranges
from exporter.sharing.plan import PlannedSegment, PlannedStep
from exporter.sources.task_model import TaskModel

_OTHER = re.compile(r"[^A-Za-z0-9_.-]")  # what no name may have
_INNER = re.compile(r"tap-[0-9a-f]{16}")  # a tensor that no client asks for


@dataclass(frozen=True)
class TensorNames:
    """The names that tensors have in other tasks. made: of inner ones, by the segment, its inputs and the place; taken: all of them."""

    made: Mapping[tuple[str, tuple[str, ...], int], str] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()


_NONE = TensorNames()


def describe_segment(planned: PlannedSegment, max_batch_rows: int, weight_files: Mapping[str, int] | None = None) -> Segment:
    """Return `planned` as the repository records it. weight_files: as of `Segment`."""
    blocks = planned.blocks
    return Segment(
        name=planned.name,
        inputs=_segment_specs(SEGMENT_INPUT, planned.inputs),
        outputs=_segment_specs(SEGMENT_OUTPUT, planned.outputs),
        blocks=span_of(blocks),
        digest=planned.digest,
        max_batch_rows=max_batch_rows,
        macs=sum(block.macs for block in blocks),
        parameters=sum(block.parameters for block in blocks),
        weight_bytes=sum(block.weight_bytes for block in blocks),
        activation_bytes=sum(tap.row_bytes for tap in planned.outputs),
        modules=tuple(dict.fromkeys(module for block in blocks for module in block.modules)),
        uncounted=tuple(sorted({operator for block in blocks for operator in block.uncounted})),
        reason=planned.reason,
        digest_version=repository_model.DIGEST_VERSION,
        sizes={name: _without_steps(size) for name, size in _sizes([*planned.inputs, *planned.outputs]).items()},
        weight_files=weight_files or {},
    )


def describe_task(
    chain: Chain, steps: Sequence[PlannedStep], model: TaskModel, max_batch_rows: int, there: TensorNames = _NONE
) -> Task:
    """Return the task of `chain` with what a person wants to know of it from `model`. there: as in `describe_steps`."""
    inputs, outputs = _input_names(chain), _output_names(chain)
    task = Task(
        name=chain.name,
        steps=describe_steps(chain, steps, there),
        inputs=tuple(_spec(inputs[tap.address], tap) for tap in chain.inputs),
        outputs=tuple(_spec(outputs[tap.address], tap) for tap in chain.outputs),
        max_batch_rows=max_batch_rows,
        labels=model.labels,
        preprocessing=model.preprocessing,
        kind=model.kind,
        provenance=model.provenance,
        sizes=_sizes([*chain.inputs, *chain.outputs]),
        values=_values(model, [inputs[tap.address] for tap in chain.inputs]),
    )
    graph = model.model.graph
    own_inputs, own_outputs = ([str(value.name) for value in values] for values in (graph.inputs, graph.outputs))
    if model.file is not None:
        called = [(task.inputs, own_inputs), (task.outputs, own_outputs)]
        names = [original_names([spec.name for spec in specs], own) for specs, own in called]
        task = replace(task, names=names[0] | names[1])
    return with_text(task, own_inputs, model.tokenizer)


def describe_steps(chain: Chain, steps: Sequence[PlannedStep], there: TensorNames = _NONE) -> tuple[Step, ...]:
    """Return the steps of the task of `chain`, its tensors named by how they are computed.

    there: the names in other tasks. What one of them computes by the same step goes by the same name, also where that is of an older
    version of the digests. Where another segment makes the same value, because this task leaves that one half-way and comes back, the
    name tells also by which it is made.
    """
    names, outputs, described = _input_names(chain), _output_names(chain), []
    for step in steps:
        inputs = tuple(names[tap.address] for tap in step.inputs)
        for index, tap in enumerate(step.outputs):
            known = there.made.get((step.segment, inputs, index)) or _inner_name(tap, step.segment, there.taken)
            names[tap.address] = outputs.get(tap.address) or known
        described.append(Step(step.segment, inputs, tuple(names[tap.address] for tap in step.outputs)))
    return tuple(described)


def names_of_tensors(tasks: Mapping[str, Sequence[Step]]) -> TensorNames:
    """Return the names of the tensors of `tasks`, which are given as their steps."""
    made: dict[tuple[str, tuple[str, ...], int], str] = {}
    taken: set[str] = set()
    for step in (step for steps in tasks.values() for step in steps):
        taken.update(step.outputs)
        for index, name in enumerate(step.outputs):
            if _INNER.fullmatch(name):
                made.setdefault((step.segment, step.inputs, index), name)
    return TensorNames(made, frozenset(taken))


def _input_names(chain: Chain) -> dict[str, str]:
    """Return what clients call the inputs, by address."""
    return {tap.address: tap.name for tap in chain.inputs}


def _output_names(chain: Chain) -> dict[str, str]:
    """Return what clients call the outputs, by address."""
    names = output_names(chain.name, [tap.name for tap in chain.outputs])
    return {tap.address: name for tap, name in zip(chain.outputs, names, strict=True)}


def _inner_name(tap: Tap, segment: str, taken: Collection[str]) -> str:
    name = f"tap-{tap.address[:16]}"
    if name not in taken:
        return name
    return f"tap-{hashlib.sha256(f'{tap.address} by {segment}'.encode()).hexdigest()[:16]}"


def _segment_specs(kind: str, taps: Sequence[Tap]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(segment_tensor(kind, index), tap) for index, tap in enumerate(taps))


def _spec(name: str, tap: Tap) -> TensorSpec:
    return TensorSpec(name, dtype_of_onnx(tap.dtype), tap.shape, axes=tap.axes)


def _values(model: TaskModel, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the numbers that inputs may have; they are called `names` in the repository."""
    ranges, graph = value_ranges(model.model.graph), model.model.graph
    called = zip(names, graph.inputs, strict=True)
    return {name: ranges[str(value.name)] for name, value in called if str(value.name) in ranges}


def _sizes(taps: Sequence[Tap]) -> dict[str, FreeSize]:
    return {name: size for tap in taps for name, size in tap.sizes.items()}


def _without_steps(size: FreeSize) -> FreeSize:
    """Return what is known of a segment's size: that a network takes sizes in steps is mostly because of what follows its trunk."""
    return replace(size, step=1, window=1)


def output_names(task: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the outputs that the network calls `names`: one is named like the task, several `task.output`.

    Characters that a name may not have become "_", or, where two would get the same name by that, their codes: "a/b" is "a_2f_b" beside
    "a:b". So a name depends on no order. Names that begin with `task.`, as those read back from a repository do, stay.
    Raises SameOutputNames.
    """
    if len(names) == 1:
        return (task,)
    own = [name.removeprefix(f"{task}.") for name in names]
    plain = [_OTHER.sub("_", name) for name in own]
    counts = Counter(plain)
    made = [
        f"{task}.{short if counts[short] == 1 or short == name else _OTHER.sub(_code, name)}"
        for name, short in zip(own, plain, strict=True)
    ]
    for name, count in Counter(made).items():
        if count > 1:
            raise SameOutputNames(task, [given for given, found in zip(names, made, strict=True) if found == name], name)
    return tuple(made)


def explain_output_names(task: str, names: Sequence[str]) -> str | None:
    """Return which of several outputs got other names than the network has for them, to be read after the task's; None: none did."""
    called = zip(names, output_names(task, names), strict=True)
    others = [f"{given!r} as {found!r}" for given, found in called if found.removeprefix(f"{task}.") != given and found != given]
    return f"gives {' and '.join(others)}." if others and len(names) > 1 else None


def _code(match: re.Match[str]) -> str:
    return f"_{ord(match[0]):x}_"
