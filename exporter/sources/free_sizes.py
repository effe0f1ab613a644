"""Finds out, by running a network, which free sizes it takes: the least and the largest, and a reference at which costs are stated.

A network may look up positions in a table, add one, or halve a height five times: no rule finds all limits, and a run finds each. Sizes
grow twofold until a run fails, or takes too long; the limit lies between the last two. Where runs get long, the sizes of weights are tried:
most often it is a table that has an end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import onnx_ir as ir

from contract.dtypes import NUMPY_DTYPES, Array, dtype_of_onnx
from contract.repository.free_sizes import FreeSize
from exporter.errors import CannotRun, UnsupportedModel
from exporter.graph.free.sizes import axes_of, free_sizes, is_settled, name_axes, name_axis, references, set_free_sizes
from exporter.sources.assumed import assume
from exporter.sources.whole import WholeNetwork, WholeSession

_LARGEST, _LARGEST_SIDE = 8192, 2048  # that are tried: of any size, of an image's side
_MOST_S = 0.2  # a run that takes longer is not followed by one of twice the size
_NO_MEMORY = ("memory", "bad_alloc", "bad allocation")

_MOST_STEP = 64  # between sizes that run

Sizes = Mapping[str, int]
_Runs = Callable[[int], bool]


def settle_free_sizes(name: str, model: ir.Model, file: Path | None = None, wanted: Sizes | None = None) -> None:
    """Find out what there is to know of the free sizes of `model`, keep it with the model, and what is to be said, too.

    file: the same network as it was given; without one `model` is written to a temporary folder. wanted: references by name. Axes get names
    that can be computed with, and those that must be equal get one. Raises UnsupportedModel where no size that was tried can be run.
    """
    if is_settled(model):
        return
    assume(model, name_axes(model))
    with _in_file(model, file) as path:
        try:
            trial = _Trial(model, path)
        except CannotRun as error:
            raise UnsupportedModel(name, f"has free sizes ({', '.join(free_sizes(model))}), and {error.reason}") from error
        asked = {key: (wanted or {}).get(key, reference) for key, reference in references(model).items()}
        start = _unite(model, trial, _start(name, trial, asked))
        found = {key: _limits(trial, start, key, asked[key]) for key in start}
    set_free_sizes(model, {key: limits.size for key, limits in found.items()})
    assume(model, [limits.sentence(key) for key, limits in found.items()])


@contextmanager
def _in_file(model: ir.Model, file: Path | None) -> Iterator[Path]:
    if file is not None:
        yield file
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model.clone(), path, external_data="weights")
        yield path


class _Trial:
    """Runs the network in `path` at sizes of its free axes, which are named as those of `model`.

    tables: the sizes of its weights. sides: sizes of images. seconds: what the last run took. reason: why it failed, if it did.
    """

    def __init__(self, model: ir.Model, path: Path) -> None:
        self._inputs = [*model.graph.inputs]
        self._session = WholeSession(WholeNetwork(path, tuple(str(value.name) for value in self._inputs), ()))
        weights = (value.const_value for value in model.graph.initializers.values() if value.const_value is not None)
        self.tables = sorted({size for tensor in weights for size in tensor.shape.numpy() if size <= _LARGEST})
        self.sides = {name for value in self._inputs if len(axes := axes_of(value)) == 3 for name in axes}
        self.seconds, self.reason = 0.0, ""

    @property
    def ran_out(self) -> bool:
        """Return whether the last run failed for want of memory, which says nothing of the network."""
        return any(word in self.reason for word in _NO_MEMORY)

    def runs(self, sizes: Sizes) -> bool:
        """Return whether the network can be run at `sizes`, on zeros and on ones: a place in a table may depend on what is a token."""
        begun = perf_counter()
        try:
            for number in (0, 1):
                self._session.run([_filled(value, sizes, number) for value in self._inputs], self._session.gives)
        except CannotRun as error:
            self.reason = error.reason
            return False
        self.reason, self.seconds = "", (perf_counter() - begun) / 2
        return True


def _filled(value: ir.Value, sizes: Sizes, number: int) -> Array:
    dtype = NUMPY_DTYPES[dtype_of_onnx(value.dtype.name if value.dtype is not None else "FLOAT")]
    fixed = [dim if isinstance(dim, int) else 0 for dim in tuple(value.shape or ())[1:]]
    return np.full((1, *(sizes.get(name, size) for name, size in zip(axes_of(value), fixed, strict=True))), number, dtype)


def _start(name: str, trial: _Trial, references: Sizes) -> dict[str, int]:
    """Return sizes at which the network runs: the references, or as often halved as it takes."""
    tried = dict(references)
    while True:
        if trial.runs(tried):
            return tried
        if max(tried.values()) == 1:
            sizes = " and ".join(f"{key} from {size} down to 1" for key, size in references.items())
            raise UnsupportedModel(name, f"has free sizes, and could not be run with {sizes} ({trial.reason}).")
        tried = {key: max(size // 2, 1) for key, size in tried.items()}


def _unite(model: ir.Model, trial: _Trial, start: dict[str, int]) -> dict[str, int]:
    """Give one name to sizes that can only be changed together; return `start` without the other names."""
    for second in [*start][1:]:
        for first in list(start)[: list(start).index(second)]:
            if start[first] == start[second] and _change_together(trial, start, first, second):
                assume(model, [f"runs only where {first!r} and {second!r} are equal; both are called {first!r} here."])
                for value in model.graph.inputs:
                    _rename(value, second, first)
                start = {key: size for key, size in start.items() if key != second}
                break
    return start


def _change_together(trial: _Trial, start: Sizes, first: str, second: str) -> bool:
    size = start[first]
    for other in {max(size - 1, 1), size + 1, max(size // 2, 1), 2 * size} - {size}:
        if trial.runs({**start, first: other}) or trial.runs({**start, second: other}):
            return False
        if trial.runs({**start, first: other, second: other}):
            return True
    return False


def _rename(value: ir.Value, old: str, new: str) -> None:
    for axis, name in enumerate(axes_of(value), 1):
        if name == old:
            name_axis(value, axis, new)


@dataclass(frozen=True)
class _Limits:
    """What is known of a free size. tried: the largest that ran."""

    size: FreeSize
    tried: int

    def sentence(self, name: str) -> str:
        """Return what is to be said of it."""
        size = self.size
        upward = f"to {size.most}" if size.most else f"upward, no limit was found up to {self.tried}"
        beside = f" and up to {size.window - 1} more" if size.window > 1 else ""
        steps = f", in steps of {size.step}{beside}" if size.step > 1 else ""
        return f"leaves {name!r} free ({size.least} {upward}{steps}); costs are stated for {size.reference}."


def _limits(trial: _Trial, start: Sizes, name: str, wanted: int) -> _Limits:
    def runs(size: int) -> bool:
        return trial.runs({**start, name: size})

    one = start[name]
    largest = _LARGEST_SIDE if name in trial.sides else _LARGEST
    if (steps := _steps(runs, one)) is not None:
        return _limits_in_steps(trial, runs, steps, one, wanted, largest)
    good, bad = _grown(trial, runs, one, largest, trial.tables)
    most = _border(runs, good, bad) if bad else None
    reference = min(wanted, most or wanted)
    reference = reference if reference == one or runs(reference) else one
    least = next((size for size in _doubled(1, reference) if runs(size)), reference)
    least = _border(runs, least, least // 2) if least > 1 else least
    return _Limits(FreeSize(reference, min(least, reference), most), good)


@dataclass(frozen=True)
class _Steps:
    """Of every `step` sizes the first `window` run, counted from `first`, which is less than a step."""

    first: int
    step: int
    window: int

    def at(self, place: int) -> int:
        """Return the first of the sizes that run of the step at `place`."""
        return self.first + place * self.step


def _steps(runs: _Runs, one: int) -> _Steps | None:
    """Return in which steps sizes run, of which `one` does; None where there are none, or none that were found.

    Of those in use no more sizes run side by side than there are between them that do not: then one of those that are 1, 2, 4, ... less
    than `one` is between, and one of those that are as much more.
    """
    powers = (1, 2, 4, 8, 16, 32)
    if all(runs(one - power) for power in powers if power < one) or all(runs(one + power) for power in powers):
        return None
    below = next((count for count in range(1, _MOST_STEP) if one == count or not runs(one - count)), _MOST_STEP)
    above = next((count for count in range(1, _MOST_STEP) if not runs(one + count)), _MOST_STEP)
    first, window = one - below + 1, below + above - 1
    step = next((step for step in range(window + 1, _MOST_STEP + 1) if runs(first + step)), 0)
    ends = [first + step, first + step + window - 1]
    if not step or not all(map(runs, ends)) or any(map(runs, (ends[0] - 1, ends[1] + 1))):
        return None
    return _Steps(first % step, step, window)


def _limits_in_steps(trial: _Trial, runs: _Runs, steps: _Steps, one: int, wanted: int, largest: int) -> _Limits:
    """Return the limits of a size that runs in `steps`: whole steps alone count, from the first to the last size of each."""
    step, window = steps.step, steps.window

    def runs_at(place: int) -> bool:
        return runs(steps.at(place)) and runs(steps.at(place) + window - 1)

    place = (one - steps.first) // step
    good, bad = _grown(trial, runs_at, max(place, 1), largest // step, tables=())
    last = _border(runs_at, good, bad) if bad else None
    most = None if last is None else steps.at(last) + window - 1
    from_place = 0 if steps.first else 1
    least = next((other for other in range(from_place, place) if runs_at(other)), place)
    found = FreeSize(one, steps.at(least), most, step, window)
    return _Limits(replace(found, reference=wanted) if found.takes(wanted) and runs(wanted) else found, steps.at(good))


def _grown(trial: _Trial, runs: _Runs, size: int, largest: int, tables: Sequence[int]) -> tuple[int, int]:
    """Return the largest size that ran, grown twofold from `size`, and one beyond it that did not; 0 where there is none.

    tables: sizes to try where a run takes long.
    """
    runs(size)
    while 2 * size <= largest and trial.seconds < _MOST_S:
        if not runs(2 * size):
            return (size, 0) if trial.ran_out else (size, 2 * size)
        size *= 2
    return _tabled(trial, runs, size, tables) if trial.seconds >= _MOST_S else (size, 0)


def _tabled(trial: _Trial, runs: _Runs, size: int, tables: Sequence[int]) -> tuple[int, int]:
    """Return the same where a run takes long already, by trying what the tables of the network allow."""
    for table in (table for table in tables if table > size):
        if runs(table + 1):
            size = table + 1
            if trial.seconds > 4 * _MOST_S:
                break
        elif trial.ran_out:
            break
        else:  # a table of positions may begin with one or two that no token has
            last = next((last for last in (table, table - 1, table - 2) if last > size and runs(last)), 0)
            return (last, last + 1) if last else (size, table - 1)
    return size, 0


def _doubled(size: int, end: int) -> Iterator[int]:
    while size < end:
        yield size
        size *= 2


def _border(runs: _Runs, good: int, bad: int) -> int:
    """Return the last size that runs between `good`, which does, and `bad`, which does not."""
    while abs(bad - good) > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if runs(middle) else (good, middle)
    return good
