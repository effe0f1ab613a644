"""Whether the rows of a batch affect each other, judged by runs: what a row answers alone, and beside others.

A server puts rows of several requests into one run, and divides a request that is larger than a run. That changes nothing where every row
is computed by itself, and gives wrong answers where it is not: normalisation over the batch, a softmax or a mean over it, quantisation by
the largest number of the batch. Needs numpy alone; how the network is run is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from contract.dtypes import Array
from contract.repository.model import TensorSpec

Run = Callable[[Sequence[Array]], Sequence[Array]]
_SCALES = (1, 10, 100)
LIMIT = 1e-4  # in units of the spread, for float32
_HALF = ("FP16", "BF16")
_ROWS = 8
# Rows that run together, the last of them twice; row r is of scale r % 3: rows of one scale, of several, and at the same places with others
# beside them. QUICK is for networks of which nothing is suspected.
Batches = Sequence[tuple[int, ...]]
THOROUGH: Batches = ((0, 1, 2, 3, 4, 5, 6, 7), (0, 1), (2, 5), (0, 3, 6), (1, 4, 7), (0, 4, 2))
QUICK: Batches = ((0, 4, 2), (0, 2), (0, 4))


@dataclass(frozen=True)
class RowsVerdict:
    """How far the answers for the same rows lay apart, in units of the spread of the answers to rows of that scale.

    alone: rows by themselves against the same rows in batches of 2, 3 and 8; another size rounds otherwise. beside: rows at one place of
    a batch of one size, with other rows beside them; nothing but these differs. repeated: the same batch run a second time.
    Infinite where the answers have no row for each row or other shapes, NaN where no answer was a finite number.
    """

    alone: float
    beside: float
    repeated: float

    def independent(self, limit: float = LIMIT, sizes: float | None = None) -> bool:
        """Return whether rows may be batched with any others. NaN is no.

        sizes: the limit for batches of different sizes, if it is another: a network that rounds to steps (half precision, quantised)
        may land a step apart there, and nowhere else.
        """
        return self.alone <= (limit if sizes is None else sizes) and self.beside <= limit and self.repeated <= limit

    def random(self, limit: float = LIMIT) -> bool:
        """Return whether the same batch has another answer each time, so that nothing can be said of its rows."""
        return self.repeated > limit


def judge_rows(run: Run, inputs: Sequence[Array], scales: Sequence[int] = _SCALES, batches: Batches = THOROUGH) -> RowsVerdict:
    """Return how much rows affect each other in the network that `run` runs.

    run: takes arrays of shape (n, ...), one for each of `inputs` in that order, for n of 1, 2, 3 and 8, and returns the outputs, of shape
    (n, ...) each. What it raises is raised here. It is called 15 times with 32 rows in all, or with QUICK 7 times with 12.
    inputs: at least two rows each that differ, more being better, as many of every input; as `contract.repository.sample` makes them.
    scales: how much larger than `inputs` rows are made. Floating-point numbers are multiplied; bytes are divided, the largest scale being
    the bytes as they are; other integers, which may be places in a table, stay.
    """
    rows = [_scaled_rows(values, scales) for values in inputs]
    seen = _Answers(scales)
    for row in sorted({row for batch in batches for row in batch}):
        seen.alone(row, run([values[[row]] for values in rows]))
    for batch in batches:
        seen.together(batch, run([values[list(batch)] for values in rows]))
    seen.again(batches[-1], run([values[list(batches[-1])] for values in rows]))
    return seen.verdict()


def allowed_error(specs: Iterable[TensorSpec], limit: float = LIMIT) -> float:
    """Return `limit`, which is meant for float32, or what it is for a network with half precision among its tensors `specs`.

    That rounds some thousand times as coarsely, and gets a limit that much wider.
    """
    return limit * 500 if any(spec.dtype in _HALF for spec in specs) else limit


def spread_of(values: Array) -> float:
    """Return the largest standard deviation over rows of any entry of an output of shape (n, ...). Entries with infinities are left out."""
    rows = values.astype(np.float64).reshape(len(values), -1)
    return float(np.std(rows[:, np.isfinite(rows).all(axis=0)], axis=0).max(initial=0.0))


def relative_error(found: Array, expected: Array, usual: Array | None = None) -> float:
    """Return max|found - expected| over the spread of `expected`: its largest standard deviation over rows, of any output entry.

    usual: whose spread it is instead. `expected` may then be no number in places, or nowhere one: a text of one token that does not count
    has no mean. So must `found` be in the same places.

    An absolute limit would let a constant pass for the output of a network whose answers hardly differ. Infinities must be in the same
    places: a network may mask what it answers. NaN where no number is expected anywhere; infinite for other shapes.
    """
    if found.shape != expected.shape:
        return np.inf
    ours, theirs = found.astype(np.float64), expected.astype(np.float64)
    known = np.isfinite(theirs)
    if usual is None and theirs.size and not known.any():
        return np.nan
    if not np.array_equal(ours[~known], theirs[~known], equal_nan=usual is not None):
        return np.inf
    return _in_units(float(np.abs(ours[known] - theirs[known]).max(initial=0.0)), spread_of(expected if usual is None else usual))


def largest_error(found: Sequence[Array], expected: Sequence[Array], usual: Sequence[Array] | None = None) -> float:
    """Return the largest `relative_error` of all outputs; NaN if one is. usual: as there."""
    errors = [relative_error(*arrays) for arrays in zip(found, expected, usual or expected, strict=True)]
    return float(np.max(errors))


@dataclass
class _Answers:
    """The answers to each row, and the largest differences so far."""

    scales: Sequence[int]
    _alone: dict[int, Sequence[Array]] = field(default_factory=dict)
    _places: dict[tuple[int, int, int], Sequence[Array]] = field(default_factory=dict)
    _errors: dict[str, list[float]] = field(default_factory=lambda: {"alone": [], "beside": [], "repeated": []})

    def alone(self, row: int, outputs: Sequence[Array]) -> None:
        """Take the answer to one row by itself."""
        self._alone[row] = [output[0] for output in outputs] if _has_rows(outputs, 1) else outputs

    def together(self, batch: Sequence[int], outputs: Sequence[Array]) -> None:
        """Compare the answers to a batch of rows with those to its rows alone, and to those at the same places of another batch."""
        if not _has_rows(outputs, len(batch)):
            self._errors["alone"].append(np.inf)
            return
        for place, row in enumerate(batch):
            answer = [output[place] for output in outputs]
            self._compare("alone", row, answer, self._alone[row])
            key = len(batch), place, row
            if key in self._places:
                self._compare("beside", row, answer, self._places[key])
            self._places[key] = answer

    def again(self, batch: Sequence[int], outputs: Sequence[Array]) -> None:
        """Compare the answers to a batch with those to the same batch before."""
        for place, row in enumerate(batch) if _has_rows(outputs, len(batch)) else ():
            earlier = self._places.get((len(batch), place, row))
            if earlier is not None:
                self._compare("repeated", row, [output[place] for output in outputs], earlier)

    def verdict(self) -> RowsVerdict:
        """Return the largest differences."""
        return RowsVerdict(**{kind: max(errors, default=np.nan) for kind, errors in self._errors.items()})

    def _compare(self, kind: str, row: int, found: Sequence[Array], expected: Sequence[Array]) -> None:
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            error = _difference(ours, theirs)
            if error is not None:
                self._errors[kind].append(_in_units(error, self._scale(row, index) if np.isfinite(error) else 1.0))

    def _scale(self, row: int, output: int) -> float:
        """Return how much an output varies over rows of the scale of `row`: at least a tenth of the largest value, as rounding
        grows with values, however little they vary.
        """
        answers = {other: outputs[output] for other, outputs in self._alone.items() if (other - row) % len(self.scales) == 0}
        values = np.stack([answer for answer in answers.values() if answer.shape == answers[row].shape]).astype(np.float64)
        values = values[:, np.isfinite(values).all(axis=0)]
        return max(spread_of(values), float(np.abs(values).max(initial=0.0)) / 10)


def _has_rows(outputs: Sequence[Array], count: int) -> bool:
    return all(output.shape[:1] == (count,) for output in outputs)


def _difference(found: Array, expected: Array) -> float | None:
    """Return the largest difference of two answers; None where `expected` is no number, which says nothing."""
    if found.shape != expected.shape:
        return np.inf
    if found.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(found, expected) else np.inf
    ours, theirs = found.astype(np.float64).reshape(-1), expected.astype(np.float64).reshape(-1)
    known = np.isfinite(theirs)
    if not known.any() and known.size:
        return None
    difference = np.abs(ours[known] - theirs[known])
    return np.inf if np.isnan(difference).any() else float(difference.max(initial=0.0))


def _in_units(difference: float, scale: float) -> float:
    if difference == 0:
        return 0.0
    return difference / scale if scale else np.inf


def _scaled_rows(values: Array, scales: Sequence[int]) -> Array:
    """Return _ROWS rows out of `values`, row r being scales[r % len(scales)] times as large."""
    rows = np.asarray(values)[np.arange(_ROWS) % len(values)]
    factors = np.resize(np.asarray(scales), _ROWS).reshape(-1, *[1] * (rows.ndim - 1))
    if rows.dtype.kind == "f":
        with np.errstate(over="ignore"):  # an infinite row says nothing of itself, and much of those beside it
            return np.asarray((rows * factors).astype(rows.dtype))
    if rows.dtype == np.uint8:
        return np.asarray((rows // (max(scales) // factors)).astype(np.uint8))
    return rows
