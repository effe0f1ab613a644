"""The tensors in an ONNX file: where they are, whether what they claim is there, and reading them with one copy and no more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

# The repeated fields of TensorProto that hold values, by the dtypes that use them (onnx.proto); all others use int32_data.
_TYPED_FIELDS = {
    ir.DataType.FLOAT: "float_data",
    ir.DataType.COMPLEX64: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.COMPLEX128: "double_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT32: "uint64_data",
    ir.DataType.UINT64: "uint64_data",
}
Weight = ir.Tensor[NDArray[np.generic]]
_COMPLEX = (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128)


def embedded_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors that are no initializers of the main graph: in attributes, in subgraphs and in the bodies of functions."""
    yield from _node_tensors(proto.graph.node)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def read_tensor(tensor: onnx.TensorProto, folder: Path, *, linked: bool = False) -> Weight | None:
    """Return the values of `tensor` in memory of their own, or None for strings, which are no weights and stay in the message.

    folder: that of the ONNX file; values kept elsewhere may only lie in it. linked: in files that are hard links, too.

    Raises ValueError, with a reason that names the tensor, unless there are as many values as its shape demands; OSError.
    """
    if not _is_text(tensor.name):
        raise ValueError(f"the tensor {tensor.name!r} has a name that is not UTF-8 text")
    if tensor.data_type not in set(ir.DataType) or tensor.data_type == ir.DataType.UNDEFINED:
        raise ValueError(f"the tensor {tensor.name!r} is of an unknown dtype ({tensor.data_type})")
    if any(dim < 0 for dim in tensor.dims):
        raise ValueError(f"the tensor {tensor.name!r} has a negative size {list(tensor.dims)}")
    dtype, shape = ir.DataType(tensor.data_type), ir.Shape(tensor.dims)
    if is_external(tensor):
        location, offset, length = _external_range(tensor, folder, linked)
        place = (folder / location, "") if linked else (location, folder)  # with a folder, onnx_ir refuses hard links
        source = ir.ExternalTensor(place[0], offset, length, dtype, shape=shape, name=tensor.name, base_dir=place[1])
        values = np.array(source.numpy())  # out of the file, which may change
        source.release()
    else:
        _check_size(tensor)
        if dtype == ir.DataType.STRING:
            return None
        values = ir.serde.deserialize_tensor(tensor).numpy()
    return ir.Tensor(values, dtype=dtype, shape=shape, name=tensor.name)


def is_finite(values: NDArray[np.generic]) -> bool:
    """Return whether `values` are free of NaN and infinity.

    Zeros and infinities alone pass: they are an attention mask, or the lone constant that masked values are set to.
    """
    finite = np.isfinite(values)
    return bool(finite.all()) or not (np.isnan(values).any() or np.any(values[finite]))


def is_external(tensor: onnx.TensorProto) -> bool:
    """Return whether the values of `tensor` are kept in a file of their own."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (part for part in (sparse.values, sparse.indices) if part.ByteSize())
        for graph in (attribute.g, *attribute.graphs):
            yield from graph.initializer
            yield from _node_tensors(graph.node)


def _is_text(value: object) -> bool:
    """Return whether `value`, a field of text, is text: what is not UTF-8 comes as bytes, whatever the annotations say."""
    return isinstance(value, str)


def _check_size(tensor: onnx.TensorProto) -> None:
    dtype, size = ir.DataType(tensor.data_type), prod(tensor.dims)
    if dtype == ir.DataType.STRING:
        found, expected, unit = len(tensor.string_data), size, "strings"
    elif tensor.HasField("raw_data"):
        found, expected, unit = len(tensor.raw_data), -(-size * dtype.bitwidth // 8), "bytes"
    else:
        found = len(getattr(tensor, _TYPED_FIELDS.get(dtype, "int32_data")))
        expected, unit = _typed_count(dtype, size), "values"
    if found != expected:
        raise ValueError(f"the tensor {tensor.name!r} has {found} {unit} where its shape and dtype demand {expected}")


def _typed_count(dtype: ir.DataType, size: int) -> int:
    """Return how many entries of a repeated field hold `size` values: complex ones take two, those of four bits share a byte."""
    if dtype in _COMPLEX:
        return 2 * size
    return -(-size * dtype.bitwidth // 8) if dtype.bitwidth < 8 else size


def _external_range(tensor: onnx.TensorProto, folder: Path, linked: bool) -> tuple[str, int, int]:
    """Return the location, offset and length in bytes of the values of `tensor`, all of which are there."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not _is_text(location):
        raise ValueError(f"the weights of {tensor.name!r} are in a file whose name is not UTF-8 text")
    if tensor.data_type == ir.DataType.STRING:
        raise ValueError(f"the tensor {tensor.name!r} keeps strings outside the model, which ONNX does not allow")
    size = _size_of_file_inside(tensor.name, folder, location, linked)
    needed = -(-prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth // 8)
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(needed)))
    except ValueError as error:
        raise ValueError(f"the tensor {tensor.name!r} names no number as offset or length of its values") from error
    if length != needed:
        raise ValueError(f"the tensor {tensor.name!r} has {length} bytes where its shape and dtype demand {needed}")
    if offset < 0 or offset + needed > size:
        raise ValueError(
            f"the tensor {tensor.name!r} needs bytes {offset} to {offset + needed} of {location!r}, "
            f"which has {size}; the file is truncated or belongs to another model"
        )
    return location, offset, needed


def _size_of_file_inside(name: str, folder: Path, location: str, hard_links: bool) -> int:
    """Return the size of the file at `location` in `folder`. No link, absolute path or ".." is followed, wherever it may lead.

    hard_links: those are.
    """
    path = PurePosixPath(location.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"the weights of {name!r} are kept outside the model's own folder ({location!r}); put them beside the model"
        )
    file = folder.joinpath(*path.parts)
    try:
        linked = any(part.is_symlink() for part in (file, *file.parents[: len(path.parts) - 1]))
        status = file.lstat() if file.is_file() else None
    except (OSError, ValueError):  # no name that a file can have
        linked, status = False, None
    if linked:
        raise ValueError(f"the weights of {name!r} are behind the link {location!r}; put the file itself beside the model")
    if status is None:
        raise ValueError(f"the weights of {name!r} are missing: there is no file {location!r} beside the model")
    if status.st_nlink > 1 and not hard_links:
        raise ValueError(f"the weights of {name!r} are behind the hard link {location!r}; put a copy beside the model")
    return status.st_size
