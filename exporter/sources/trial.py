"""Runs a file as it was given beside what was made of it, where reading it took an assumption or a conversion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir

from contract.dtypes import Array, dtype_of_onnx
from contract.repository import TensorSpec
from contract.repository.rows import spread_of
from contract.repository.sample import sample_inputs
from exporter.errors import BadModel, CannotRun, NonFiniteWeights
from exporter.graph.free.sizes import axes_of, references
from exporter.sources.assumed import infinite
from exporter.sources.whole import WholeNetwork, WholeSession

_ROWS = 2
_LIMIT = 0.01  # of the answers' spread: roundings differ with the order of sums, and steps of quantised networks by one
_FREED = (
    "the batch size is fixed to 1, and two rows at once get other answers than alone; export it with a dynamic first dimension."
)
_ANEW = "answers otherwise once it is in an opset and with inputs that can be served; export it with an opset from 18 to 21."


def compare_with_file(path: Path, model: ir.Model, *, together: bool = True) -> tuple[str, ...]:
    """Return what is to be known of the answers of `model`, in sentences.

    together: two rows at once; otherwise one by one, as a file gets them that takes one. Raises BadModel unless `model`, in canonical
    form, answers as the file at `path` does, NonFiniteWeights where constants with infinities leave no answer.
    """
    inputs = tuple(str(value.name) for value in model.graph.inputs)
    sizes = references(model)
    rows = [*sample_inputs([_spec(value, sizes) for value in model.graph.inputs], _ROWS).values()]
    try:
        given = WholeSession(WholeNetwork(path, inputs, ()))
        with TemporaryDirectory() as folder:
            ours = WholeSession(WholeNetwork(_written(model, Path(folder)), inputs, ()))
            answers = _answers(ours, rows, ours.gives, together)
        common = [name for name in given.gives if name in answers]
        expected = _answers(given, rows, common, together)
    except CannotRun as error:
        raise BadModel(path, f"cannot be run by ONNX Runtime ({error.reason}).") from error
    if not all(_are_equal(answers[name], expected[name]) for name in common):
        raise BadModel(path, _FREED if given.takes_one else _ANEW)
    return tuple(_infinite_answers(path, model, answers))


def _answers(session: WholeSession, rows: Sequence[Array], names: Sequence[str], together: bool) -> dict[str, Array]:
    parts = [rows] if together else [[values[row : row + 1] for values in rows] for row in range(_ROWS)]
    answers = [session.run(part, names) for part in parts]
    return {name: np.concatenate(pieces) for name, pieces in zip(names, zip(*answers, strict=True), strict=True)}


def _written(model: ir.Model, folder: Path) -> Path:
    path = folder / "model.onnx"
    ir.save(model, path, external_data="weights")
    return path


def _infinite_answers(path: Path, model: ir.Model, answers: Mapping[str, Array]) -> Iterator[str]:
    """Yield a sentence for each output with infinities in places. Raises NonFiniteWeights for one without a number, or with NaN."""
    for name, values in answers.items() if infinite(model) else ():
        finite = np.isfinite(values)
        if np.isnan(values).any() or (values.size and not finite.any()):
            raise NonFiniteWeights(str(path), infinite(model)[0])
        if not finite.all():
            yield f"answers with infinite numbers in places in {name!r}, as that mask has it."


def _are_equal(ours: Array, theirs: Array) -> bool:
    if ours.size != theirs.size:
        return False
    found, expected = (values.reshape(_ROWS, -1).astype(np.float64) for values in (ours, theirs))
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True):
        return False
    known = np.where(finite, expected, 0)
    scale = max(spread_of(known), float(np.abs(known).max(initial=0.0)) / 10)
    return bool((np.abs(found - known)[finite] <= _LIMIT * scale).all())


def _spec(value: ir.Value, sizes: Mapping[str, int]) -> TensorSpec:
    axes = zip(tuple(value.shape or ())[1:], axes_of(value), strict=True)
    shape = tuple(size if isinstance(size, int) else sizes[name] for size, name in axes)
    return TensorSpec(str(value.name), dtype_of_onnx(value.dtype.name if value.dtype is not None else "FLOAT"), shape)
