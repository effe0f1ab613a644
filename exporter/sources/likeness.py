"""Tells files of one graph whose weights alone differ, as tasks on one backbone are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import numpy_helper

from exporter.sources.tensors import is_external

# Numbers of fewer bytes may be sizes, scales or limits, by which graphs are rewritten. Beyond, what a number is decides no way through
# the libraries, as long as it is one.
_LEAST_BYTES = 4096
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def graph_digest(file: Path) -> bytes | None:
    """Return a hash of all that `file` holds but the values of its large weights; None where that would not tell enough of it.

    That is so where it cannot be read, has weights in other files, or numbers that are infinite or none.
    """
    try:
        proto = onnx.ModelProto.FromString(file.read_bytes())
        if not all(_leave_out(tensor) for tensor in proto.graph.initializer):
            return None
        return hashlib.sha256(proto.SerializeToString(deterministic=True)).digest()
    except (OSError, DecodeError, EncodeError, ValueError, TypeError):
        return None


def _leave_out(tensor: onnx.TensorProto) -> bool:
    """Take the values out of `tensor` if it is a large weight. Return whether all of them are numbers, and in the file."""
    if is_external(tensor):
        return False
    if tensor.data_type not in _FLOATS or len(tensor.raw_data) < _LEAST_BYTES:
        return True
    if not np.isfinite(numpy_helper.to_array(tensor)).all():
        return False
    tensor.raw_data = b""
    return True
