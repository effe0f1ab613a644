"""Runs ONNX models while exporting, to check them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from contract.dtypes import Array
from exporter.errors import ExportError
from exporter.sources.onnx_file import first_line


def open_session(model: Path | ir.Model) -> ort.InferenceSession:
    """Return a CPU session of `model` that does not spin while it is idle. Raises ExportError when ONNX Runtime cannot run it."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = str(model) if isinstance(model, Path) else ir.to_proto(model).SerializeToString()
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidGraph, errors.InvalidArgument, errors.NotImplemented, errors.RuntimeException) as error:
        raise ExportError(f"ONNX Runtime cannot run the model ({first_line(error)}).") from error


def run_session(session: ort.InferenceSession, inputs: Mapping[str, Array], what: str) -> Sequence[Array]:
    """Return all outputs of `session` for `inputs`. Raises ExportError, naming `what` fails, when ONNX Runtime cannot."""
    try:
        results: Sequence[Array] = session.run(None, dict(inputs))
    except (
        Exception
    ) as error:  # ONNX Runtime's exceptions have no common base; bfloat16, which numpy lacks, is a plain RuntimeError
        raise ExportError(f"ONNX Runtime cannot run {what} ({first_line(error)}).") from error
    return results
