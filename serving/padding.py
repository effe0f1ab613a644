"""Texts that are padded to one of a few lengths, so that requests of different lengths run together. Pure functions of arrays.

Only where the network has a mask that hides what is added: an input of integers, 1 for each token that counts, that the task's tokenizer
gives, or where it has none an input `attention_mask`. Whether the network heeds it everywhere is found out by runs (`padding_check`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from contract.dtypes import Array
from contract.repository.model import Repository, Task, TensorSpec
from contract.text import TextInput

_MASK, _IDS = "attention_mask", "input_ids"
_INTEGERS = ("INT64", "INT32")


class Unpaddable(Exception):
    """A task is not padded; the text says why, as the rest of a sentence about it."""


@dataclass(frozen=True)
class Padding:
    """How the texts of tasks are padded. axis: what their length is called. mask: the input that says which tokens count.

    lengths: to which they are padded, ascending; what is longer stays as it is. fill: what is added to each input that has the axis, and
    places: where it has it, the rows being axis 0.
    """

    axis: str
    mask: str
    lengths: tuple[int, ...]
    fill: Mapping[str, int]
    places: Mapping[str, int]

    def length_of(self, inputs: Mapping[str, Array]) -> int:
        """Return the length of `inputs`, arrays of shape (n, ...) by name."""
        length: int = inputs[self.mask].shape[self.places[self.mask]]
        return length

    def padded(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return `inputs` with the next of the lengths; as they are where there is none, or a row has no token that counts.

        Such a row is answered by whatever the network makes of nothing, which may be more with what is added.
        """
        length = self.length_of(inputs)
        place = bisect_left(self.lengths, length)
        if place == len(self.lengths) or self.lengths[place] == length or not inputs[self.mask].any(axis=-1).all():
            return inputs
        return self.padded_to(inputs, self.lengths[place])

    def padded_to(self, inputs: Mapping[str, Array], length: int) -> Mapping[str, Array]:
        """Return `inputs` with `length`, which is no less than theirs."""
        added = length - self.length_of(inputs)
        return {name: self._grown(name, values, added) if name in self.fill else values for name, values in inputs.items()}

    def _grown(self, name: str, values: Array, added: int) -> Array:
        widths = [(0, added if axis == self.places[name] else 0) for axis in range(values.ndim)]
        return np.pad(values, widths, constant_values=self.fill[name])


@dataclass(frozen=True)
class PaddedOutput:
    """An output of a task that is padded. places: of its axes that are cut back, the rows being axis 0."""

    padding: Padding
    places: tuple[int, ...]

    def cut(self, values: Array, length: int) -> Array:
        """Return `values` without what was added to a text of `length`."""
        if not self.places:
            return values
        kept = tuple(slice(length) if axis in self.places else slice(None) for axis in range(values.ndim))
        return np.ascontiguousarray(values[kept])


def padding_of(task: Task, lengths: Sequence[int]) -> Padding:
    """Return how `task` is padded to `lengths`, as far as it takes them; ids are filled up as its tokenizer does. Raises Unpaddable."""
    text = task.text or TextInput("", _named(task, _IDS), _named(task, _MASK))
    mask = next((spec for spec in task.inputs if spec.name == text.mask and spec.dtype in _INTEGERS), None)
    if mask is None or len(mask.axes) != 1 or not mask.axes[0]:
        raise Unpaddable(f"it takes no {text.mask or _MASK!r} of integers with a length that is free")
    if not text.padded:
        raise Unpaddable("its mask does not hide what is added, as its export has found")
    (axis,) = mask.axes
    places = {spec.name: _place(spec, axis) for spec in task.inputs if axis in spec.axes}
    for output in task.outputs:
        if any(name not in ("", axis) for name in output.axes) or (-1 in output.shape and not output.axes):
            raise Unpaddable(f"its output {output.name!r} has another free size than {axis!r}")
    fill = {name: text.pad if name == text.ids else 0 for name in places}
    for name, value in fill.items():
        least, most = task.values.get(name, (value, value))
        if not least <= value <= most:
            raise Unpaddable(f"it does not take {value}, which its {name!r} would be filled up with")
    size = task.sizes.get(axis)
    known = sorted({length for length in lengths if size is None or size.takes(length)})
    if not known:
        raise Unpaddable(f"it takes none of the lengths {', '.join(map(str, lengths))}")
    return Padding(axis, mask.name, tuple(known), fill, places)


def padded_outputs(task: Task, padding: Padding) -> dict[str, PaddedOutput]:
    """Return, by its outputs, what `padding` makes of `task`."""
    return {
        spec.name: PaddedOutput(padding, tuple(place + 1 for place, name in enumerate(spec.axes) if name == padding.axis))
        for spec in task.outputs
    }


def _named(task: Task, name: str) -> str:
    """Return what the input is called here that the network's own file calls `name`; that, where there is none."""
    return next((spec.name for spec in task.inputs if name in task.names.get(spec.name, ())), name)


def check_batched(repository: Repository, task: Task) -> None:
    """Raise Unpaddable where requests for `task` would not run together whatever their lengths are."""
    for step in task.steps:
        if repository.segments[step.segment].is_coupled:
            raise Unpaddable(f"its segment {step.segment!r} takes one request a run")


def _place(spec: TensorSpec, axis: str) -> int:
    if spec.dtype not in _INTEGERS:
        raise Unpaddable(f"nobody knows what its input {spec.name!r} ({spec.dtype}) would be filled up with")
    if spec.axes.count(axis) > 1:
        raise Unpaddable(f"its input {spec.name!r} has {axis!r} twice")
    return spec.axes.index(axis) + 1
