"""Reads ONNX files that anyone may have written, without trusting them."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from exporter.errors import BadModel

MAX_IR_VERSION = 10  # what Triton 24.10 accepts
MAX_OPSET = 21


def load_onnx(path: Path) -> ir.Model:
    """Return the model in the ONNX file at `path`, its weights in memory.

    Raises BadModel when the file is missing, truncated, invalid, keeps weights outside its own folder, or needs a newer opset than the
    target (opset 21 for Triton 24.10).
    """
    if not path.is_file():
        raise BadModel(path, "there is no such file.")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise BadModel(path, "is not an ONNX model, or is truncated.") from error
    _check(path, proto)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
        onnx.checker.check_model(proto)
        return ir.from_proto(proto)
    except (onnx.checker.ValidationError, ir.serde.SerdeError, OSError, ValueError) as error:
        raise BadModel(path, f"is not a valid ONNX model ({_first_line(error)}).") from error


def _check(path: Path, proto: onnx.ModelProto) -> None:
    if not proto.graph.node or not proto.graph.output:
        raise BadModel(path, "is not an ONNX model, or is truncated.")
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > MAX_OPSET:
            raise BadModel(path, f"uses opset {opset.version}; export it with opset {MAX_OPSET} or lower.")
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and not _is_inside(path.parent, entry.value):
                raise BadModel(path, f"keeps the weights of {tensor.name!r} outside its own folder; put them beside the model.")


def _is_inside(folder: Path, location: str) -> bool:
    file = folder / location
    return not Path(location).is_absolute() and not file.is_symlink() and file.resolve().is_relative_to(folder.resolve())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
