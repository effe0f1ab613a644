"""Runs ONNX models while exporting, to check them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from contract.dtypes import Array
from exporter.errors import CannotRun
from exporter.sources.onnx_file import first_line

_LARGE = 4096  # bytes
_PLAIN = frozenset((ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.UINT8))


def open_session(model: Path | ir.Model, *, optimised: bool = True) -> ort.InferenceSession:
    """Return a CPU session of `model` that does not spin while it is idle. optimised: whether ONNX Runtime may rewrite the graph.

    Raises CannotRun.
    """
    options = ort.SessionOptions()
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what fails is raised, too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content, arrays = (str(model), None) if isinstance(model, Path) else _written(model, options)
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise CannotRun("the model", first_line(error)) from error
    session.weights_in_use = arrays  # it reads them where they lie, as long as it lives
    return session


def _written(model: ir.Model, options: ort.SessionOptions) -> tuple[bytes, Mapping[str, Array]]:
    """Return `model` as a file without its large weights, and these: `options` get them as they lie in memory, where they must stay.

    A file has a copy of them, and ONNX Runtime makes two more of what it reads in one.
    """
    large = {
        name: value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
        and value.const_value.nbytes >= _LARGE
        and value.const_value.dtype in _PLAIN
        and value.uses()  # what nothing takes ONNX Runtime has dropped already, and does not find
    }
    arrays = {name: np.ascontiguousarray(value.const_value) for name, value in large.items()}
    options.add_external_initializers([*arrays], [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()])
    with _elsewhere(large.values()):
        written: bytes = ir.to_proto(model).SerializeToString()
    return written, arrays


@contextmanager
def _elsewhere(values: Iterable[ir.Value]) -> Iterator[None]:
    """Let the weights `values` be in a file that is nowhere, as long as it lasts."""
    tensors = [(value, value.const_value) for value in values]
    for value, tensor in tensors:
        if tensor is not None:
            shape = ir.Shape(tensor.shape.numpy())
            value.const_value = ir.ExternalTensor("memory", 0, tensor.nbytes, tensor.dtype, shape=shape, name=str(value.name))
    try:
        yield
    finally:
        for value, tensor in tensors:
            value.const_value = tensor


def run_session(
    session: ort.InferenceSession, inputs: Mapping[str, Array], what: str, outputs: Sequence[str] | None = None
) -> Sequence[Any]:
    """Return the `outputs` of `session`, by default all, for `inputs`: arrays, but for maps and sequences.

    Raises CannotRun, naming `what` fails.
    """
    try:
        results: Sequence[Any] = session.run(outputs, dict(inputs))
    except Exception as error:  # bfloat16, which numpy lacks, is a plain RuntimeError
        raise CannotRun(what, first_line(error)) from error
    return results
