"""Damage to ONNX files, at the level of bytes and of the message, decided by a random generator. Used by the fuzz tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random

import onnx
from onnx import TensorProto, helper

_OPERATORS = (
    "Conv Gemm MatMul Relu Reshape Add Mul Transpose Flatten Concat Split Slice Gather Shape Cast Expand Tile Range Constant "
    "ConstantOfShape Identity If Loop Pad Resize Unsqueeze Squeeze BatchNormalization Softmax LSTM Where ReduceMean OneHot TopK "
    "Einsum SequenceConstruct NoSuchOperator"
).split()
_NUMBERS = (-(2**63), -1, 0, 1, 2, 3, 4, 6, 7, 2**15, 2**31, 2**40, 2**62)
_ATTRIBUTES = ("axis", "axes", "perm", "kernel_shape", "pads", "group", "to", "shape", "num_outputs", "equation", "")


def mutated(content: bytes, random: Random) -> bytes:
    """Return the ONNX model in `content` truncated, with other bytes, or with other fields."""
    kind = random.random()
    if kind < 0.1:
        return content[: random.randrange(len(content))]
    if kind < 0.3:
        return _with_other_bytes(content, random)
    proto = onnx.ModelProto.FromString(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        with contextlib.suppress(
            IndexError, ValueError, TypeError
        ):  # nothing left there to damage, or a number that does not fit
            random.choice(_MUTATIONS)(proto, random)
    return proto.SerializeToString()


def _with_other_bytes(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(changed))
        changed[start : start + random.randint(0, 4)] = random.randbytes(random.randint(1, 4))
    return bytes(changed)


def _other_input(proto: onnx.ModelProto, random: Random) -> None:
    node = random.choice(proto.graph.node)
    node.input[random.randrange(len(node.input))] = random.choice([*_names(proto), "", "nowhere"])


def _fewer_inputs(proto: onnx.ModelProto, random: Random) -> None:
    del random.choice(proto.graph.node).input[0]


def _more_inputs(proto: onnx.ModelProto, random: Random) -> None:
    random.choice(proto.graph.node).input.append(random.choice(_names(proto)))


def _other_output(proto: onnx.ModelProto, random: Random) -> None:
    random.choice(proto.graph.node).output[0] = random.choice([*_names(proto), "", "fresh"])


def _more_outputs(proto: onnx.ModelProto, random: Random) -> None:
    random.choice(proto.graph.node).output.append("extra")


def _no_node(proto: onnx.ModelProto, random: Random) -> None:
    del proto.graph.node[random.randrange(len(proto.graph.node))]


def _other_operator(proto: onnx.ModelProto, random: Random) -> None:
    node = random.choice(proto.graph.node)
    node.op_type, node.domain = random.choice(_OPERATORS), random.choice(("", "", "", "com.microsoft"))


def _other_size(proto: onnx.ModelProto, random: Random) -> None:
    dims = random.choice(proto.graph.initializer).dims
    dims[random.randrange(len(dims))] = random.choice(_NUMBERS)


def _other_dtype(proto: onnx.ModelProto, random: Random) -> None:
    random.choice(proto.graph.initializer).data_type = random.randrange(30)


def _no_weight(proto: onnx.ModelProto, random: Random) -> None:
    del proto.graph.initializer[random.randrange(len(proto.graph.initializer))]


def _computed_constant(proto: onnx.ModelProto, random: Random) -> None:
    """A node whose inputs are all constants, as constant folding computes it."""
    values = [random.choice(_NUMBERS) for _ in range(random.randrange(4))]
    proto.graph.initializer.append(helper.make_tensor("numbers", TensorProto.INT64, [len(values)], values))
    proto.graph.node.insert(0, helper.make_node(random.choice(_OPERATORS), ["numbers"] * random.randint(1, 3), ["computed"]))
    _feed(proto, random, "computed")


def _feed(proto: onnx.ModelProto, random: Random, name: str) -> None:
    node = random.choice(proto.graph.node)
    node.input[random.randrange(len(node.input))] = name


def _other_attribute(proto: onnx.ModelProto, random: Random) -> None:
    node = random.choice(proto.graph.node)
    values = ([random.choice(_NUMBERS) for _ in range(3)], random.choice(_NUMBERS), "ij,jk->ik", proto.graph)
    del node.attribute[: random.randrange(2)]
    node.attribute.append(helper.make_attribute(random.choice(_ATTRIBUTES), random.choice(values)))


def _other_type(proto: onnx.ModelProto, random: Random) -> None:
    tensor = random.choice([*proto.graph.input, *proto.graph.output]).type.tensor_type
    if random.random() < 0.5:
        tensor.elem_type = random.randrange(30)
    else:
        random.choice(tensor.shape.dim).dim_value = random.choice(_NUMBERS)


def _other_opset(proto: onnx.ModelProto, random: Random) -> None:
    proto.opset_import[0].version = random.randrange(25)
    proto.ir_version = random.choice((0, 3, 8, 9, 10, 99))


def _recursive_function(proto: onnx.ModelProto, random: Random) -> None:
    body = [helper.make_node(random.choice(("Relu", "F")), ["a"], ["b"], domain=random.choice(("", "local")))]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    proto.functions.append(helper.make_function("local", "F", ["a"], ["b"], body, opsets))
    proto.opset_import.append(opsets[1])
    node = random.choice(proto.graph.node)
    node.op_type, node.domain = "F", "local"


def _names(proto: onnx.ModelProto) -> list[str]:
    return [value.name for value in (*proto.graph.input, *proto.graph.initializer)] + [
        name for node in proto.graph.node for name in node.output
    ]


_MUTATIONS: tuple[Callable[[onnx.ModelProto, Random], None], ...] = (
    _other_input,
    _fewer_inputs,
    _more_inputs,
    _other_output,
    _more_outputs,
    _no_node,
    _other_operator,
    _other_size,
    _other_dtype,
    _no_weight,
    _computed_constant,
    _other_attribute,
    _other_type,
    _other_opset,
    _recursive_function,
)
