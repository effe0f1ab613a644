"""Runs ONNX models while exporting, to check them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime as ort

from contract.dtypes import Array
from exporter.errors import CannotRun
from exporter.sources.onnx_file import first_line


def open_session(model: Path | ir.Model, *, optimised: bool = True) -> ort.InferenceSession:
    """Return a CPU session of `model` that does not spin while it is idle. optimised: whether ONNX Runtime may rewrite the graph.

    Raises CannotRun.
    """
    options = ort.SessionOptions()
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what fails is raised, too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = str(model) if isinstance(model, Path) else ir.to_proto(model).SerializeToString()
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise CannotRun("the model", first_line(error)) from error


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
