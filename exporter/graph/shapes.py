"""Concrete shapes of all tensors of a model at a given batch size, by ONNX shape inference; where that ends, by ONNX Runtime's.

ONNX follows the contents of integer tensors only so far, and a Reshape to a computed shape then has an unknown one. So what is computed
from shapes alone is run, and inference repeated with the results in place, until nothing more comes out.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from contract.dtypes import Array
from exporter.graph.foreign import Foreign, ask_runtime, is_foreign
from exporter.graph.free.sizes import axes_of, references

Shapes = Mapping[str, tuple[int, ...]]
SHAPE_READERS = frozenset(("Shape", "Size"))
RANDOM = frozenset(("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"))
LARGEST_FOLLOWED = 64  # entries of a tensor whose contents are followed: enough for shapes
_KNOWN = 8  # graphs whose shapes are kept: those of tasks on one network most often are the same
_ROUNDS = 64  # a network of windows computes the sizes of each block from the one before


@dataclass(frozen=True)
class Inferred:
    """Shapes of a model's tensors by name, and the contents of those that are computed from shapes alone, where they are small.

    dtypes: of tensors in models with operators that onnx does not know.
    """

    shapes: dict[str, tuple[int, ...]]
    contents: dict[str, Array]
    dtypes: Mapping[str, ir.DataType] = field(default_factory=dict)


def infer_shapes(model: ir.Model, batch: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor whose shape is known when the input has `batch` rows. `model` is left as it is."""
    return infer(model, batch).shapes


def infer(model: ir.Model, batch: int, sizes: Mapping[str, int] | None = None) -> Inferred:
    """Return what is known of the tensors of `model` when its input has `batch` rows. `model` is left as it is.

    sizes: its free sizes by name; None: at their references.
    """
    return Inference(model).at(batch, sizes)


class Inference:
    """Infers what is known of the tensors of `model` at several sizes. It must not change meanwhile."""

    def __init__(self, model: ir.Model) -> None:
        self._model, self._skeleton, self._has_foreign = model, _skeleton(model), has_foreign(model)

    def at(self, batch: int, sizes: Mapping[str, int] | None = None) -> Inferred:
        """Return what `infer` does."""
        proto = self._of_sizes(batch, references(self._model) if sizes is None else sizes)
        if self._has_foreign:
            return _infer(proto, self._model)
        known = _infer_known(proto.SerializeToString(deterministic=True))
        return Inferred(dict(known.shapes), dict(known.contents))

    def _of_sizes(self, batch: int, sizes: Mapping[str, int]) -> onnx.ModelProto:
        proto = onnx.ModelProto()
        proto.CopyFrom(self._skeleton)
        for info, value in zip(proto.graph.input, self._model.graph.inputs, strict=False):
            others = zip(_dims(value)[1:], axes_of(value), strict=True)
            info.CopyFrom(_info(value, [batch, *(sizes.get(name) if dim is None else dim for dim, name in others)]))
        return proto


@lru_cache(_KNOWN)
def _infer_known(written: bytes) -> Inferred:
    """Return what is known of a model whose operators onnx knows: that depends on what is `written` of it alone."""
    return _infer(onnx.ModelProto.FromString(written))


def _infer(proto: onnx.ModelProto, model: ir.Model | None = None) -> Inferred:
    """Return what is known of the tensors of `proto`. model: what it was made from, if it has operators that onnx does not know."""
    contents: dict[str, Array] = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    shapes = {name: array.shape for name, array in contents.items()}
    computed: dict[str, Array] = {}
    foreign = Foreign()
    for _ in range(_ROUNDS):
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
        shapes |= _concrete_shapes(inferred.graph)
        if model is not None and any(_is_unknown(node, shapes) for node in proto.graph.node):
            foreign = ask_runtime(proto, list(_weights_of_foreign(model)))
            shapes |= foreign.shapes
            _record(proto.graph, foreign)
        found = _run_size_arithmetic(proto, shapes, contents)
        if not found:
            break
        contents |= found
        computed |= found
        shapes |= {name: array.shape for name, array in found.items()}
    return Inferred(shapes, computed, foreign.dtypes)


def has_foreign(model: ir.Model) -> bool:
    """Return whether `model` has operators that onnx does not know, or control flow."""
    return any(is_foreign(node.domain) for node in model.graph)


def shape_of(value: ir.Value | None, shapes: Shapes) -> tuple[int, ...]:
    """Return the shape of `value`. Raises KeyError with its name when it is not known."""
    return shapes[name_of(value)]


def bytes_of(value: ir.Value) -> int:
    """Return the size of the constant that `value` is, 0 where it is none."""
    return 0 if value.const_value is None else int(value.const_value.nbytes)


def name_of(value: ir.Value | None) -> str:
    """Return the name of `value`: every tensor of a model that was read or written has one."""
    return str(value.name) if value is not None else ""


def _is_unknown(node: onnx.NodeProto, shapes: Shapes) -> bool:
    """Whether `node` is of an operator that onnx does not know, and one of its results has no shape."""
    return is_foreign(node.domain) and any(name and name not in shapes for name in node.output)


def _weights_of_foreign(model: ir.Model) -> Iterator[onnx.TensorProto]:
    """Yield the large constants that operators take which onnx does not know: some want them when a network is opened."""
    nodes = (node for node in model.graph if is_foreign(node.domain))
    for value in dict.fromkeys(value for node in nodes for value in node.inputs):
        if value is not None and value.const_value is not None and value.const_value.size > LARGEST_FOLLOWED:
            yield ir.to_proto(ir.Tensor(value.const_value.numpy(), dtype=value.const_value.dtype, name=name_of(value)))


def _record(graph: onnx.GraphProto, foreign: Foreign) -> None:
    """Note in `graph` what ONNX Runtime says, for onnx to go on from there."""
    del graph.value_info[:]
    for name, shape in foreign.shapes.items():
        if name in foreign.dtypes:
            graph.value_info.append(onnx.helper.make_tensor_value_info(name, foreign.dtypes[name].value, shape))


def _skeleton(model: ir.Model) -> onnx.ModelProto:
    """Return `model` without what shapes do not depend on: large weights become inputs, recorded shapes go. Its own inputs come first."""
    graph = onnx.GraphProto(name="shapes")
    graph.node.extend(map(ir.serde.serialize_node, model.graph))
    graph.input.extend(_info(value, None) for value in model.graph.inputs)
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.const_value.size <= LARGEST_FOLLOWED:
            graph.initializer.append(numpy_helper.from_array(value.const_value.numpy(), name_of(value)))
        else:
            graph.input.append(_info(value, _dims(value if value.const_value is None else value.const_value)))
    graph.output.extend(_info(value, None) for value in model.graph.outputs)
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    return onnx.helper.make_model(graph, ir_version=model.ir_version, opset_imports=opsets, functions=function_protos(model))


def function_protos(model: ir.Model) -> list[onnx.FunctionProto]:
    """Return the functions of `model`: its control flow."""
    return [ir.serde.serialize_function(function) for function in model.functions.values()]


def _info(value: ir.Value, dims: Sequence[int | None] | None) -> onnx.ValueInfoProto:
    dtype = value.dtype if value.dtype is not None else ir.DataType.UNDEFINED
    return onnx.helper.make_tensor_value_info(name_of(value), dtype.value, dims)


def _dims(value: ir.Value | ir.TensorProtocol) -> list[int | None]:
    return [dim if isinstance(dim, int) else None for dim in value.shape or ()]


def _concrete_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for info in (*graph.input, *graph.value_info, *graph.output):
        tensor = info.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[info.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return shapes


def _run_size_arithmetic(proto: onnx.ModelProto, shapes: Shapes, contents: dict[str, Array]) -> dict[str, Array]:
    """Put what is computed from known shapes and `contents` in place as constants, and return it by name."""
    opsets = {opset.domain: opset.version for opset in proto.opset_import}
    found: dict[str, Array] = {}
    kept = onnx.GraphProto()
    for node in proto.graph.node:
        inputs = known_inputs(node, shapes, ChainMap(found, contents))
        outputs = run_node(node, inputs, opsets) if inputs is not None else None
        if outputs is None or any(output.size > LARGEST_FOLLOWED for output in outputs):
            kept.node.append(node)
        else:
            found |= dict(zip(node.output, outputs, strict=False))
    del proto.graph.node[:]
    proto.graph.node.extend(kept.node)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in found.items())
    return found


def known_inputs(node: onnx.NodeProto, shapes: Shapes, contents: Mapping[str, Array]) -> dict[str, Array] | None:
    """Return the contents of the inputs of `node`, or empty tensors of their shapes for a reader of shapes; None if one is unknown."""
    names = [name for name in node.input if name]
    if node.op_type in RANDOM:
        return None
    if node.op_type in SHAPE_READERS:
        return {name: np.broadcast_to(np.float32(0), shapes[name]) for name in names if name in shapes} or None
    return {name: contents[name] for name in names} if all(name in contents for name in names) else None


def run_node(node: onnx.NodeProto, inputs: dict[str, Array], opsets: dict[str, int]) -> list[Array] | None:
    """Return the outputs of `node`, None where they cannot be computed."""
    try:
        return [np.asarray(output) for output in ReferenceEvaluator(node, opsets=opsets).run(None, inputs)]
    except Exception:  # what the evaluator cannot run is unknown, whatever the reason
        return None
