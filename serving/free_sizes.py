"""Checks the sizes and values of a request that its model leaves free; each refusal is one sentence with what came and what is right."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from contract.dtypes import Array
from contract.errors import InvalidRequest
from contract.repository.free_sizes import FreeSize
from contract.repository.model import Segment, Task, TensorSpec
from contract.repository.reference import at_reference, has_reference


@dataclass(frozen=True)
class InputLimits:
    """What requests for some of a model's outputs may bring. model: that says so, as clients know it.

    outputs: for which this holds. inputs: with the names of their axes. sizes, values: as of a task.
    """

    model: str
    outputs: frozenset[str]
    inputs: tuple[TensorSpec, ...]
    sizes: Mapping[str, FreeSize]
    values: Mapping[str, tuple[int, int]]

    def check(self, inputs: Mapping[str, Array], shown: Callable[[str], str] = str) -> None:
        """Raise InvalidRequest unless `inputs`, arrays of shape (n, ...) that fit the model's, are within these limits.

        shown: returns what clients call an input.
        """
        seen: dict[str, tuple[str, int]] = {}  # of each axis: the input that told its size first
        for spec in self.inputs:
            for name, size in zip(spec.axes, inputs[spec.name].shape[1:], strict=False):
                if name and seen.setdefault(name, (spec.name, size))[1] != size:
                    other, wanted = seen[name]
                    raise InvalidRequest(
                        f"Input {shown(spec.name)!r} has {_words(name)} {size}, but {shown(other)!r} has {wanted}; model {self.model!r} "
                        f"takes them with one and the same {_words(name)}."
                    )
        for name, (first, size) in seen.items():
            if name in self.sizes and not self.sizes[name].takes(size):
                raise InvalidRequest(
                    f"Input {shown(first)!r} has {_words(name)} {size}; model {self.model!r} takes {_describe(self.sizes[name], size)}."
                )
        for tensor, ends in self.values.items():
            self._check_values(shown(tensor), inputs[tensor], ends)

    def at_reference(self) -> Sequence[TensorSpec]:
        """Return the inputs at the reference sizes; none where one of these is not known."""
        return at_reference(self.inputs, self.sizes) if has_reference(self.inputs, self.sizes) else ()

    def at_most(self) -> Sequence[TensorSpec]:
        """Return the inputs with the largest size in place of each free one; -1: there is none."""
        most = {name: size.most for name, size in self.sizes.items()}
        axes = [spec.axes or ("",) * len(spec.shape) for spec in self.inputs]
        shapes = (
            tuple(size if size >= 0 else most.get(name) or -1 for size, name in zip(spec.shape, names, strict=True))
            for spec, names in zip(self.inputs, axes, strict=True)
        )
        return [replace(spec, shape=shape) for spec, shape in zip(self.inputs, shapes, strict=True)]

    def _check_values(self, name: str, values: Array, ends: tuple[int, int]) -> None:
        least, most = (int(values.min()), int(values.max())) if values.size else ends
        if least < ends[0] or most > ends[1]:
            worst = least if least < ends[0] else most
            raise InvalidRequest(
                f"Input {name!r} has the value {worst}, which is beyond the vocabulary of model {self.model!r}; it takes "
                f"{ends[0]} to {ends[1]}."
            )


def limits_of_tasks(tasks: Iterable[Task]) -> tuple[InputLimits, ...]:
    """Return the limits of these tasks, which one model computes: one for those that have the same, none for those that have none."""
    alike: list[tuple[Task, list[str]]] = []
    for task in tasks:
        if not (task.sizes or task.values):
            continue
        same = next((outputs for other, outputs in alike if _have_same(task, other)), None)
        if same is None:
            same = []
            alike.append((task, same))
        same.extend(spec.name for spec in task.outputs)
    return tuple(InputLimits(task.name, frozenset(names), task.inputs, task.sizes, task.values) for task, names in alike)


def limits_of_segment(segment: Segment) -> tuple[InputLimits, ...]:
    """Return the limits of a segment that is asked for by name."""
    outputs = frozenset(spec.name for spec in segment.outputs)
    return (InputLimits(segment.name, outputs, segment.inputs, segment.sizes, {}),) if segment.sizes else ()


def check_limits(
    limits: Sequence[InputLimits], inputs: Mapping[str, Array], outputs: Collection[str], shown: Callable[[str], str] = str
) -> None:
    """Raise InvalidRequest unless `inputs` are within those of `limits` that hold for one of `outputs`. shown: as above."""
    for limit in limits:
        if not limit.outputs.isdisjoint(outputs):
            limit.check(inputs, shown)


def _have_same(task: Task, other: Task) -> bool:
    axes = [[spec.axes for spec in one.inputs] for one in (task, other)]
    return task.inputs == other.inputs and axes[0] == axes[1] and task.sizes == other.sizes and task.values == other.values


def _describe(known: FreeSize, size: int) -> str:
    """Return what a model takes that does not take `size`, in words; where it takes sizes in steps, the nearest ones, too."""
    ends = f"at least {known.least}" if known.most is None else f"{known.least} to {known.most}"
    if known.step == 1:
        return ends
    beside = f", and up to {known.window - 1} more than each" if known.window > 1 else ""
    return f"{ends} in steps of {known.step}{beside}; {' and '.join(map(str, known.nearest(size)))} would do"


def _words(axis: str) -> str:
    """Return what an axis is called in a sentence."""
    return axis.replace("_", " ")
