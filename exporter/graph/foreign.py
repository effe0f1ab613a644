"""Types and shapes behind operators that onnx does not know, as ONNX Runtime infers them, or else finds them by a run.

com.microsoft and others have operators of their own, and onnx infers nothing for some of ai.onnx.ml. Nothing behind the first has a shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from contract.dtypes import NUMPY_DTYPES, RUNTIME_DTYPES, Array, onnx_dtype

_OF_ONNX = ("", "ai.onnx")
CONTROL_FLOW = "espalier.flow"  # the domain of what passes make of If, Loop and Scan: the operator and the digest of its bodies
_CHOSEN = "espalier chose"
_MOST_VALUES = 2**24  # of a tensor that is made up for a run


@dataclass(frozen=True)
class Foreign:
    """What ONNX Runtime says of tensors by name; what it does not know is missing."""

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, ir.DataType] = field(default_factory=dict)


def is_foreign(domain: str) -> bool:
    """Return whether onnx's inference does not know the operators of `domain`, or not all of them."""
    return domain not in _OF_ONNX


def operator_name(node: ir.Node) -> str:
    """Return what `node` is called to people: its domain is left out where it is onnx's."""
    if node.domain == CONTROL_FLOW:
        return kind_of(node.op_type)
    return f"{node.domain}.{node.op_type}" if is_foreign(node.domain) else node.op_type


def kind_of(name: str) -> str:
    """Return which operator a function of control flow is made of: "Loop" for Loop_5f2a."""
    return name.partition("_")[0]


def ask_runtime(proto: onnx.ModelProto, weights: Iterable[onnx.TensorProto]) -> Foreign:
    """Return what ONNX Runtime knows of the tensors of `proto`, whose inputs have fixed shapes.

    weights: the contents of inputs, for operators that want them as constants. Of what is behind an If, what holds for both branches.
    """
    first, *others = [_ask(variant, weights) for variant in _branches(proto)]
    shapes = {name: shape for name, shape in first.shapes.items() if all(other.shapes.get(name) == shape for other in others)}
    return Foreign(shapes, first.dtypes)


def _branches(proto: onnx.ModelProto) -> list[onnx.ModelProto]:
    """Return `proto`, or where it has an If, what it is where all of them take one branch, and the other."""
    conditions = {
        function.name: list(function.input).index(node.input[0])
        for function in proto.functions
        for node in function.node
        if node.op_type == "If" and node.input[0] in function.input
    }
    if not conditions:
        return [proto]
    found = []
    for chosen in (True, False):
        variant = onnx.ModelProto()
        variant.CopyFrom(proto)
        variant.graph.initializer.append(onnx.numpy_helper.from_array(np.array(chosen), _CHOSEN))
        for node in variant.graph.node:
            if node.domain == CONTROL_FLOW and node.op_type in conditions:
                node.input[conditions[node.op_type]] = _CHOSEN
        found.append(variant)
    return found


def _ask(proto: onnx.ModelProto, weights: Iterable[onnx.TensorProto]) -> Foreign:
    wanted = [name for node in proto.graph.node for name in node.output if name]
    session = _open(proto, wanted, ()) or _open(proto, wanted, weights)
    if session is None:
        return Foreign()
    found = {value.name: value for value in session.get_outputs()}
    dtypes = {name: dtype for name, value in found.items() if (dtype := _dtype(value.type)) is not None}
    # An empty shape is a number's, or nothing is known; a run tells.
    shapes = {name: tuple(value.shape) for name, value in found.items() if value.shape and _is_fixed(value.shape)}
    missing = [name for name in found if name not in shapes]
    return Foreign(shapes | (_run(session, missing) if missing else {}), dtypes)


def _open(proto: onnx.ModelProto, outputs: Sequence[str], weights: Iterable[onnx.TensorProto]) -> ort.InferenceSession | None:
    """Return a session that gives all of `outputs`, None where there can be none."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    constants = {tensor.name: tensor for tensor in weights}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(constants.values())
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # ONNX Runtime's exceptions have no common base; what it does not take is unknown
        return None


def _run(session: ort.InferenceSession, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that `names` have whether all inputs are zeros or ones: those that do not depend on what is in them."""
    found: list[dict[str, tuple[int, ...]]] = []
    for value in (0, 1):
        inputs = {given.name: _filled(given, value) for given in session.get_inputs()}
        if any(array is None for array in inputs.values()):
            return {}
        try:
            outputs = session.run(list(names), inputs)
        except Exception:  # as above
            return {}
        found.append({name: output.shape for name, output in zip(names, outputs, strict=True) if isinstance(output, np.ndarray)})
    return {name: shape for name, shape in found[0].items() if found[1].get(name) == shape}


def _filled(given: ort.NodeArg, value: int) -> Array | None:
    dtype = RUNTIME_DTYPES.get(given.type)
    if dtype is None or not _is_fixed(given.shape) or np.prod(given.shape, dtype=float) > _MOST_VALUES:
        return None
    return np.full(given.shape, value, NUMPY_DTYPES[dtype])


def _is_fixed(shape: object) -> bool:
    return isinstance(shape, list) and all(isinstance(size, int) for size in shape)


def _dtype(word: str) -> ir.DataType | None:
    """Return ONNX's type for what ONNX Runtime calls tensor(float)."""
    name = onnx_dtype(RUNTIME_DTYPES.get(word, word.removeprefix("tensor(").removesuffix(")").upper()))
    return ir.DataType[name] if name in ir.DataType.__members__ else None
