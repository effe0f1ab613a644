"""Runs ONNX models while exporting, to check them."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort


def open_session(model: Path | ir.Model) -> ort.InferenceSession:
    """Return a CPU session of `model` that does not spin while it is idle."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = str(model) if isinstance(model, Path) else ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
