"""Runs a file as it was given beside what was made of it, where reading it took an assumption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from contract.dtypes import NUMPY_DTYPES, RUNTIME_DTYPES, Array, dtype_of_onnx
from contract.repository import TensorSpec
from contract.repository.rows import spread_of
from contract.repository.sample import sample_inputs
from exporter.errors import BadModel, NonFiniteWeights
from exporter.sources.assumed import infinite
from exporter.sources.onnx_file import first_line

_ROWS = 2
_LIMIT = 0.01  # of the answers' spread: roundings differ with the order of sums, and steps of quantised networks by one
_FREED = (
    "the batch size is fixed to 1, and two rows at once get other answers than alone; export it with a dynamic first dimension."
)
_ANEW = "answers otherwise once it is in an opset and with inputs that can be served; export it with an opset from 7 to 21."


def compare_with_file(path: Path, model: ir.Model, *, together: bool = True) -> tuple[str, ...]:
    """Return what is to be known of the answers of `model`, in sentences.

    together: two rows at once; otherwise one by one, as a file gets them that takes one. Raises BadModel unless `model`, in canonical
    form, answers as the file at `path` does, NonFiniteWeights where constants with infinities leave no answer.
    """
    rows = sample_inputs([_spec(value) for value in model.graph.inputs], _ROWS)
    with TemporaryDirectory() as folder:
        ours = _open(path, _written(model, Path(folder)))
        answers = _run(path, ours, rows) if together else _run_alone(path, ours, rows)
    given = _open(path, path)
    alone = _takes_one(given) or not together
    expected = _run_alone(path, given, rows) if alone else _run(path, given, rows)
    for name in answers.keys() & expected.keys():
        if not _are_equal(answers[name], expected[name]):
            raise BadModel(path, _FREED if _takes_one(given) else _ANEW)
    return tuple(_infinite_answers(path, model, answers))


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


def _open(path: Path, model: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise BadModel(path, f"cannot be run by ONNX Runtime ({first_line(error)}).") from error


def _run_alone(path: Path, session: ort.InferenceSession, rows: Mapping[str, Array]) -> dict[str, Array]:
    alone = [_run(path, session, {name: values[row : row + 1] for name, values in rows.items()}) for row in range(_ROWS)]
    return {name: np.stack([answer[name] for answer in alone]) for name in alone[0]}


def _takes_one(session: ort.InferenceSession) -> bool:
    return any(value.shape[:1] == [1] for value in session.get_inputs())


def _run(path: Path, session: ort.InferenceSession, rows: Mapping[str, Array]) -> dict[str, Array]:
    shapes = {value.name: value.shape for value in session.get_inputs()}
    fed = {
        name: values.reshape(len(values)) if len(shapes[name]) == 1 else values for name, values in rows.items() if name in shapes
    }
    names = [value.name for value in session.get_outputs() if value.type.startswith("tensor(") and "string" not in value.type]
    count = max((len(values) for values in fed.values()), default=1)
    unused = {value.name: _zeros(value, count) for value in session.get_inputs() if value.name not in fed}
    try:
        return dict(zip(names, session.run(names, fed | unused), strict=True))
    except Exception as error:  # as above
        raise BadModel(path, f"cannot be run by ONNX Runtime ({first_line(error)}).") from error


def _zeros(value: ort.NodeArg, rows: int) -> Array:
    """Return what an input gets that no answer depends on."""
    sizes = [size if isinstance(size, int) else rows if axis == 0 else 1 for axis, size in enumerate(value.shape)]
    return np.zeros(sizes, NUMPY_DTYPES[RUNTIME_DTYPES.get(value.type, "FP32")])


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


def _spec(value: ir.Value) -> TensorSpec:
    sizes = tuple(size for size in tuple(value.shape or ())[1:] if isinstance(size, int))
    return TensorSpec(str(value.name), dtype_of_onnx(value.dtype.name if value.dtype is not None else "FLOAT"), sizes)
