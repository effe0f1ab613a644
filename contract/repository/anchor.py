"""The order of the steps of an ensemble with several inputs, as Triton 24.10 needs it. Pure functions.

Where a request leaves outputs out, Triton walks back from them and leaves out the steps that only they need. An input of the ensemble that
is no longer needed then counts as made by step number 0: with each such input that step has one output less that somebody needs, and with
none it is left out, too, so that the request fails ("unexpected deadlock"). So step 0 is one that nobody needs who does not need every
input. Where there is none, it copies one input, to as many outputs as Triton may count off and one more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import prod

from contract.dtypes import NUMPY_DTYPES
from contract.repository.model import Step, TensorSpec
from contract.repository.unite import Copy


def anchored(steps: Sequence[Step], inputs: Sequence[TensorSpec], outputs: Collection[str]) -> tuple[list[Step], list[Copy]]:
    """Return `steps` with one first that Triton does not leave out by mistake, and the models that copy, if that takes some."""
    if len(inputs) < 2:
        return list(steps), []
    users = _users(steps, outputs)
    everybody = (1 << len(outputs)) - 1
    loose = [spec for spec in inputs if users.get(spec.name, 0) != everybody]
    all_loose = everybody
    for spec in loose:
        all_loose &= users.get(spec.name, 0)
    for index, step in enumerate(steps):
        needed = 0
        for name in step.outputs:
            needed |= users.get(name, 0)
        if needed & ~all_loose == 0:
            return [step, *steps[:index], *steps[index + 1 :]], []
    return _with_copies(steps, min(loose, key=_row_bytes), len(loose))


def _users(steps: Sequence[Step], outputs: Collection[str]) -> Mapping[str, int]:
    """Return for each tensor the outputs that need it, as bits."""
    users = {name: 1 << index for index, name in enumerate(outputs)}
    for step in reversed(steps):  # a step comes after those that it needs
        needed = 0
        for name in step.outputs:
            needed |= users.get(name, 0)
        for name in step.inputs:
            users[name] = users.get(name, 0) | needed
    return users


def _with_copies(steps: Sequence[Step], spec: TensorSpec, ways: int) -> tuple[list[Step], list[Copy]]:
    """Return `steps` behind two that make `spec` many and one again. ways: as many as can be counted off, and one more."""
    inside = f"inside:{spec.name}"  # no task can be called that
    many = tuple(f"{inside}.{number}" for number in range(ways))
    spread, joined = Copy(spec.name, spec, outlets=ways), Copy(spec.name, spec, inlets=ways)
    first = [Step(spread.model, (spec.name,), many), Step(joined.model, many, (inside,))]

    def behind(step: Step) -> Step:
        return Step(step.segment, tuple(inside if name == spec.name else name for name in step.inputs), step.outputs)

    return [*first, *map(behind, steps)], [spread, joined]


def _row_bytes(spec: TensorSpec) -> int:
    dtype = NUMPY_DTYPES.get(spec.dtype)
    return prod(map(abs, spec.shape)) * (2 if dtype is None else dtype.itemsize)
