"""Where a cut is, of several places that would do: in front of what has weights, and where the least crosses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exporter.graph.chain import Chain, count_users
from exporter.graph.network import Network, make_chain
from exporter.graph.passes.canonical import canonicalise
from tests.exporter.quantised import quantised, quantised_siamese, quantised_with_side_head

CONSTANTS = {
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "sizes": np.array([1, 1, 2, 2], np.float32),
    "shape": np.array([1, 4, 8, 2]),
}
NODES = {
    "relu": ("Relu", (), {}),
    "pad": ("Pad", ("pads",), {}),
    "resize": ("Resize", ("", "sizes"), {}),
    "halve": ("AveragePool", (), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "half": ("Cast", (), {"to": TensorProto.FLOAT16}),
    "float": ("Cast", (), {"to": TensorProto.FLOAT}),
}


def chain_of(*operators: str | int) -> Chain:
    """A convolution for each number, its seed, and others by name; each tensor is called by its place and who makes it."""
    nodes: list[NodeProto] = []
    weights = {name: numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()}
    x = "image"
    for place, operator in enumerate(operators):
        if isinstance(operator, int):
            weight = np.random.default_rng(operator).standard_normal((4, 4, 3, 3)).astype(np.float32)
            weights[f"w{place}"] = numpy_helper.from_array(weight, f"w{place}")
            nodes.append(helper.make_node("Conv", [x, f"w{place}"], [f"{place} conv"], pads=[1] * 4))
        else:
            name, inputs, attributes = NODES[operator]
            nodes.append(helper.make_node(name, [x, *inputs], [f"{place} {operator}"], **attributes))
        x = nodes[-1].output[0]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 4, 8, 8])
    last = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", 4, None, None])
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(nodes, "net", [image], [last], [tensor for name, tensor in weights.items() if name in used])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return make_chain("net", canonicalise(ir.from_proto(model)))


@pytest.mark.parametrize(
    ("operators", "cut"),
    [
        ((1, "relu", 2), "1 relu"),
        ((1, "relu", "halve", 2), "2 halve"),
        ((1, "relu", "pad", 2), "1 relu"),
        ((1, "relu", "resize", "relu", 2), "1 relu"),
        ((1, "pad", "halve", 2), "2 halve"),
        ((1, "half", "float", 2), "1 half"),
    ],
)
def test_a_cut_is_where_the_least_crosses_and_behind_the_activation(operators: Sequence[str | int], cut: str) -> None:
    chain = chain_of(*operators)
    assert [block.end.name for block in chain.blocks] == [cut, f"{len(operators) - 1} conv"]
    assert [block.macs > 0 for block in chain.blocks] == [True, True]


def test_what_stands_at_the_end_has_no_block_of_its_own() -> None:
    assert [block.end.name for block in chain_of(1, "relu", 2, "relu", "resize").blocks] == ["1 relu", "4 resize"]


def types(model: ir.Model) -> list[str]:
    return [block.end.dtype for block in make_chain("net", canonicalise(model)).blocks]


def test_blocks_of_quantised_networks_end_behind_convolutions_and_where_their_numbers_are_quantised() -> None:
    assert types(quantised((1, 2), head=3)) == ["FLOAT", "UINT8", "FLOAT", "FLOAT", "FLOAT"]
    chain = make_chain("net", canonicalise(quantised((1, 2), head=3)))
    assert [block.macs for block in chain.blocks] == [64 * 4 * 36, 0, 64 * 4 * 36, 0, 12]


def test_outputs_that_part_at_what_dequantises_are_told_apart() -> None:
    chain = make_chain("net", canonicalise(quantised_with_side_head((1, 2, 3), at=1, head=5)))
    assert all(len(block.outputs) == 1 for block in chain.blocks)
    (side,) = [block for block in chain.blocks if block.end.name == "side"]
    assert side.start.dtype == "UINT8"


def test_a_concatenation_of_quantised_numbers_begins_behind_what_quantises() -> None:
    network = Network("net", canonicalise(quantised_siamese((1, 2), 1, (30,), head=4)))
    frozen = Network("frozen", canonicalise(quantised((1, 2, 3), head=4)))
    chain = network.chain(count_users([network.values, frozen.values]))
    (joined,) = [block for block in chain.blocks if len(block.inputs) > 1]
    assert [tap.dtype for tap in joined.inputs] == ["UINT8", "UINT8"]


def test_what_crosses_has_a_type_that_messages_have() -> None:
    model = quantised((1, 2), head=3)
    model.graph.opset_imports[""] = 21
    model.graph.initializers["zero"].const_value = ir.from_proto(helper.make_tensor("zero", TensorProto.UINT4, [], [7]))
    model.graph.initializers["zero"].dtype = ir.DataType.UINT4
    assert set(types(model)) == {"FLOAT"}
