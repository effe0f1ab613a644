"""Reads ONNX files that anyone may have written, without trusting them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from exporter.errors import BadModel, FolderGiven, NonFiniteWeights
from exporter.sources.assumed import assume, set_infinite, set_labels
from exporter.sources.ends import plain_ends
from exporter.sources.opsets import lowered
from exporter.sources.runtime_operators import spell_out
from exporter.sources.tensors import Weight, embedded_tensors, is_external, is_finite, read_tensor
from exporter.sources.topological_sort import sort_nodes

# What these take is multiplied and summed: an infinity there leaves no answer.
_PRODUCTS = (
    "Conv",
    "ConvTranspose",
    "MatMul",
    "Gemm",
    "Einsum",
    "LSTM",
    "GRU",
    "RNN",
    "BatchNormalization",
    "LayerNormalization",
    "Mul",
)
_OF_ONE_MACHINE = (
    "com.microsoft.nchwc",
    "com.ms.internal.nhwc",
)  # domains of operators that ONNX Runtime puts in for its own machine
_LEAST_IR = 4  # before, weights had to be inputs, too
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


def load_onnx(path: Path, *, linked: bool = False) -> ir.Model:
    """Return the model in the ONNX file at `path`, its weights in memory: once, and twice while it is read.

    linked: files with weights may be hard links, as those of a repository's segments are.

    What had to be assumed or changed is kept with it (`exporter.sources.assumed`). Raises BadModel when the file is missing, empty,
    truncated or invalid, keeps weights outside its own folder, lacks some of them, takes or gives other things than tensors of numbers, was
    optimised for one machine, or needs an opset outside 7 to 21 (what ONNX Runtime and Triton 24.10 run), NonFiniteWeights when one is NaN.
    """
    proto = _parse(path)
    _refuse_one_machine(path, proto)
    _mend_names(proto)
    spelling = spell_out(path, proto)
    proto, lowering = _lowered(path, proto)
    try:
        overridable = _drop_weight_inputs(proto)
        weights, infinite = _take_weights(path, proto, linked)
        sort_nodes(proto.graph)
        ends = plain_ends(path, proto)
        proto = _copied(proto)
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
    assume(model, [sentence for sentence in (spelling, lowering, overridable, *ends.remarks) if sentence])
    assume(model, [f"has infinite numbers in the constant {name!r}, which is taken for a mask." for name in infinite])
    set_labels(model, ends.labels)
    set_infinite(model, infinite)
    return model


def _copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `proto`, whose large weights have been taken: what is left of a message keeps all in memory that it ever held."""
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    return copied


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


def _refuse_one_machine(path: Path, proto: onnx.ModelProto) -> None:
    """Raise BadModel for a file whose weights lie as the vectors of one processor want them: another one would compute something else."""
    for node in proto.graph.node:
        if node.domain in _OF_ONE_MACHINE:
            raise BadModel(
                path,
                f"was optimised by ONNX Runtime for the processor of one machine ({node.domain}.{node.op_type}), and others may answer "
                "wrongly; give the file that it was made from, or have it optimised up to ORT_ENABLE_EXTENDED.",
            )


def _lowered(path: Path, proto: onnx.ModelProto) -> tuple[onnx.ModelProto, str | None]:
    if proto.graph.sparse_initializer:
        raise BadModel(path, "keeps weights in sparse form; export it with dense ones.")
    try:
        return lowered(path, proto)
    except _FOREIGN_ERRORS as error:
        raise BadModel(path, f"is not a valid ONNX model ({first_line(error)}).") from error


def _mend_names(proto: onnx.ModelProto) -> None:
    """Make good what has no meaning and is refused all the same: nodes of one name, a graph without, "ai.onnx" where it is not imported."""
    proto.graph.name = proto.graph.name or "network"
    seen = {""}
    for node in proto.graph.node:
        if node.name in seen:
            node.ClearField("name")
        seen.add(node.name)
    if all(opset.domain != "ai.onnx" for opset in proto.opset_import):
        for node in proto.graph.node:
            node.domain = "" if node.domain == "ai.onnx" else node.domain


def _drop_weight_inputs(proto: onnx.ModelProto) -> str | None:
    """Take the weights out of the inputs of `proto`; return what that means for who knows the file, None if none was there."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    dropped = len(proto.graph.input) - len(inputs)
    if not dropped:
        return None
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    was, proto.ir_version = proto.ir_version, max(proto.ir_version, _LEAST_IR)
    if was < _LEAST_IR:
        return None  # no way to say that they are constants
    return f"lists {dropped} of its weights as inputs, too, which ONNX Runtime lets a caller replace; here they are constants."


def _take_weights(path: Path, proto: onnx.ModelProto, linked: bool) -> tuple[dict[str, Weight], list[str]]:
    """Check every tensor, and take the large ones out of `proto`: whoever is given the message copies it, some of them twice.

    The names of those with infinities among other numbers come second. Raises NonFiniteWeights for NaN, and infinities in a weight.
    """
    weights, infinite = {}, list[str]()
    factors = {name for node in proto.graph.node if node.op_type in _PRODUCTS for name in node.input}
    for tensor in embedded_tensors(proto):
        values = _read(path, tensor, factors, infinite, linked)
        if values is not None and is_external(tensor):
            tensor.CopyFrom(ir.to_proto(values))
    for tensor in proto.graph.initializer:
        values = _read(path, tensor, factors, infinite, linked)
        if values is not None and (is_external(tensor) or values.nbytes > _SMALL_BYTES):
            weights[tensor.name] = values
            tensor.CopyFrom(onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0]))
    return weights, infinite


def _read(path: Path, tensor: onnx.TensorProto, factors: Collection[str], infinite: list[str], linked: bool) -> Weight | None:
    """Return the values of `tensor`; note in `infinite` one with infinities that may be a mask, because it is none of the `factors`."""
    values = read_tensor(tensor, path.parent, linked=linked)
    if values is not None and values.dtype.is_floating_point() and not is_finite(values.numpy()):
        if tensor.name in factors or np.isnan(values.numpy()).any():
            raise NonFiniteWeights(str(path), tensor.name)
        infinite.append(tensor.name or "without a name")
    return values


def _put_weights(model: ir.Model, weights: Mapping[str, Weight]) -> None:
    for name, tensor in weights.items():
        value = model.graph.initializers[name]
        value.const_value, value.shape, value.dtype = tensor, tensor.shape, tensor.dtype
