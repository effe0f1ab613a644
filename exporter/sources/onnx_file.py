"""Reads ONNX files that anyone may have written, without trusting them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from exporter.errors import BadModel, FolderGiven, NonFiniteWeights
from exporter.sources.tensors import Weight, embedded_tensors, is_external, is_finite, read_tensor
from exporter.sources.topological_sort import sort_nodes

_MIN_OPSET, _MAX_OPSET = 7, 21  # from what ONNX Runtime runs to what Triton 24.10 accepts
_MAX_FILE_BYTES = 2**31 - 1  # of a protobuf message
_SMALL_BYTES = 1024  # tensors up to here stay in the message, larger ones are taken out of it

# What onnx and onnx_ir raise for models that they do not understand.
_FOREIGN_ERRORS = (
    onnx.checker.ValidationError,
    ir.serde.SerdeError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    RuntimeError,
)


def load_onnx(path: Path) -> ir.Model:
    """Return the model in the ONNX file at `path`, its weights in memory: once, and twice while it is read.

    Raises BadModel when the file is missing, empty, truncated or invalid, keeps weights outside its own folder, lacks some of them, or
    needs an opset outside 7 to 21 (what ONNX Runtime and Triton 24.10 run), NonFiniteWeights when one is NaN.
    """
    proto = _parse(path)
    _check_versions(path, proto)
    try:
        weights = _take_weights(path, proto)
        sort_nodes(proto.graph)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadModel(path, f"{first_line(error)}.") from error
    except MemoryError as error:
        raise BadModel(path, "does not fit into memory.") from error
    try:
        onnx.checker.check_model(proto)
        model: ir.Model = ir.from_proto(proto)
        _put_weights(model, weights)
    except _FOREIGN_ERRORS as error:
        raise BadModel(path, f"is not a valid ONNX model ({first_line(error)}).") from error
    return model


def check_file(path: Path) -> None:
    """Raise BadModel unless `path` is a file that is not empty."""
    if path.is_dir():
        raise FolderGiven(path)
    if not path.is_file():
        raise BadModel(path, "there is no such file.")
    if path.stat().st_size == 0:
        raise BadModel(path, "the file is empty.")


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says, to be quoted in a sentence."""
    return str(error).strip().splitlines()[0].rstrip(".:, ") if str(error).strip() else type(error).__name__


def _parse(path: Path) -> onnx.ModelProto:
    check_file(path)
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise BadModel(
            path, "is larger than 2 GB, the limit of an ONNX file; save it with its weights as external data beside it."
        )
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise BadModel(path, f"cannot be read: {error.strerror}.") from error
    except (DecodeError, ValueError) as error:
        raise BadModel(path, "is not an ONNX model, or is truncated.") from error
    if not proto.graph.node or not proto.graph.output:
        raise BadModel(path, "is not an ONNX model, or is truncated.")
    return proto


def _check_versions(path: Path, proto: onnx.ModelProto) -> None:
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and not _MIN_OPSET <= opset.version <= _MAX_OPSET:
            raise BadModel(path, f"uses opset {opset.version}; export it with an opset from {_MIN_OPSET} to {_MAX_OPSET}.")
    if proto.graph.sparse_initializer:
        raise BadModel(path, "keeps weights in sparse form; export it with dense ones.")


def _take_weights(path: Path, proto: onnx.ModelProto) -> dict[str, Weight]:
    """Check every tensor, and take the large ones out of `proto`: whoever is given the message copies it, some of them twice."""
    weights = {}
    for tensor in embedded_tensors(proto):
        values = _read_finite(path, tensor)
        if values is not None and is_external(tensor):
            tensor.CopyFrom(ir.to_proto(values))
    for tensor in proto.graph.initializer:
        values = _read_finite(path, tensor)
        if values is not None and (is_external(tensor) or values.nbytes > _SMALL_BYTES):
            weights[tensor.name] = values
            tensor.CopyFrom(onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0]))
    return weights


def _read_finite(path: Path, tensor: onnx.TensorProto) -> Weight | None:
    values = read_tensor(tensor, path.parent)
    if values is not None and values.dtype.is_floating_point() and not is_finite(values.numpy()):
        raise NonFiniteWeights(str(path), tensor.name)
    return values


def _put_weights(model: ir.Model, weights: Mapping[str, Weight]) -> None:
    for name, tensor in weights.items():
        value = model.graph.initializers[name]
        value.const_value, value.shape, value.dtype = tensor, tensor.shape, tensor.dtype
