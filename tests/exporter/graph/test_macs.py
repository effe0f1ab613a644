from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.graph.macs import count_macs
from exporter.graph.shapes import infer_shapes
from tests.exporter.graph.passes.graphs import parse


@pytest.mark.parametrize(
    ("equation", "weights", "macs"),
    [
        ("bij,jk->bik", "float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}", 3 * 4 * 2),
        ("bij, bkj -> bik", "float[1, 2, 4] w = {1, 2, 3, 4, 5, 6, 7, 8}", 3 * 2 * 4),
        ("...ij,jk->...ik", "float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}", 3 * 4 * 2),
        ("bij,j->bij", "float[4] w = {1, 2, 3, 4}", 0),
    ],
)
def test_einsum_counts_a_mac_per_combination_of_indices(equation: str, weights: str, macs: int) -> None:
    model = parse(f'logits = Einsum <equation = "{equation}"> (image, w)', logits="float[batch, N, M] logits", weights=weights)
    assert count_macs(model.graph, infer_shapes(model, 1)).total == macs
    assert count_macs(model.graph, infer_shapes(model, 1)).uncounted == ()


def test_shapes_follow_what_is_computed_from_shapes() -> None:
    body = """shape = Shape(image) zero = Constant <value_int = 0> () one = Constant <value_int = 1> () batch = Gather(shape, zero)
    many = Range(zero, batch, one) column = Unsqueeze(many, last) logits = Cast <to = 1> (column)"""
    model = parse(body, logits="float[batch, N] logits", weights="int64[1] last = {1}")
    assert infer_shapes(model, 5)["logits"] == (5, 1)
    assert infer_shapes(model, 100)["logits"] == (100, 1)


# Per step: (input + hidden) products for each gate of each hidden number, and so in each direction.
@pytest.mark.parametrize(
    ("operator", "gates", "directions", "macs"),
    [
        ("LSTM", 4, 1, 5 * 4 * 3 * (2 + 3)),
        ("LSTM", 4, 2, 5 * 4 * 3 * (2 + 3) * 2),
        ("GRU", 3, 1, 5 * 3 * 3 * (2 + 3)),
        ("RNN", 1, 1, 5 * 1 * 3 * (2 + 3)),
    ],
)
def test_a_recurrent_layer_counts_its_products_at_each_step(operator: str, gates: int, directions: int, macs: int) -> None:
    weights = {"w": (directions, gates * 3, 2), "r": (directions, gates * 3, 3)}
    attributes = {"hidden_size": 3, "direction": "bidirectional" if directions == 2 else "forward"}
    nodes = [
        helper.make_node("Transpose", ["series"], ["steps"], perm=[1, 0, 2]),
        helper.make_node(operator, ["steps", "w", "r"], ["y"], **attributes),
    ]
    check(
        nodes, {"series": (TensorProto.FLOAT, 5, 2)}, {name: np.zeros(shape, np.float32) for name, shape in weights.items()}, macs
    )


def test_layout_1_has_the_rows_first() -> None:
    weights = {"w": np.zeros((1, 12, 2), np.float32), "r": np.zeros((1, 12, 3), np.float32)}
    node = helper.make_node("LSTM", ["series", "w", "r"], ["y"], hidden_size=3, layout=1)
    check([node], {"series": (TensorProto.FLOAT, 5, 2)}, weights, 5 * 4 * 3 * (2 + 3))


def test_products_of_integers_count_as_those_of_fractions() -> None:
    zero, scale = np.array(0, np.uint8), np.array(1, np.float32)
    kernel, matrix = np.zeros((6, 3, 2, 2), np.uint8), np.zeros((3, 7), np.uint8)
    image, row = {"x": (TensorProto.UINT8, 3, 5, 5)}, {"x": (TensorProto.UINT8, 3)}
    check([helper.make_node("ConvInteger", ["x", "w"], ["y"])], image, {"w": kernel}, 6 * 4 * 4 * 3 * 2 * 2)
    scales = {"s": scale, "z": zero}
    qlinear = helper.make_node("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"])
    check([qlinear], image, {"w": kernel, **scales}, 6 * 4 * 4 * 3 * 2 * 2)
    check([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], row, {"w": matrix}, 3 * 7)
    qlinear = helper.make_node("QLinearMatMul", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"])
    check([qlinear], row, {"w": matrix, **scales}, 3 * 7)


MS = "com.microsoft"
FLOAT = TensorProto.FLOAT
SEQUENCE = {"x": (FLOAT, 5, 6)}  # five steps of six numbers
FOREIGN = {
    "FusedMatMul": (["x", "w"], {"x": (FLOAT, 5, 6)}, {"w": (6, 4)}, {"alpha": 2.0}, 5 * 6 * 4),
    "FusedMatMul, turned": (["x", "w"], {"x": (FLOAT, 5, 6)}, {"w": (5, 4)}, {"transA": 1}, 6 * 5 * 4),
    "FusedMatMul, both": (["x", "w"], {"x": (FLOAT, 5, 6)}, {"w": (4, 6)}, {"transB": 1}, 5 * 6 * 4),
    "FusedConv": (["x", "w"], {"x": (FLOAT, 3, 5, 5)}, {"w": (6, 3, 2, 2)}, {"activation": "Relu"}, 6 * 4 * 4 * 3 * 4),
    "FusedGemm": (["x", "w"], {"x": (FLOAT, 6)}, {"w": (6, 4)}, {"activation": "Relu"}, 6 * 4),
    "Attention": (["x", "w", "b"], SEQUENCE, {"w": (6, 18), "b": (18,)}, {"num_heads": 2}, 5 * 6 * 18 + 2 * 5 * 5 * 6),
    "MultiHeadAttention": (["x", "x", "x"], SEQUENCE, {}, {"num_heads": 2}, 2 * 5 * 5 * 6),
    "MultiHeadAttention, others": (
        ["x", "k", "k"],
        SEQUENCE | {"k": (FLOAT, 7, 6)},
        {},
        {"num_heads": 2},
        2 * 5 * 7 * 6,
    ),
    "MultiHeadAttention, packed": (["x"], {"x": (FLOAT, 5, 2, 3, 4)}, {}, {"num_heads": 2}, 2 * 5 * 5 * 8),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_operators_of_onnx_runtime_count_as_what_they_stand_for(name: str) -> None:
    inputs, given, weights, attributes, macs = FOREIGN[name]
    node = helper.make_node(name.partition(",")[0], inputs, ["y"], domain=MS, **attributes)
    check([node], given, {key: np.zeros(shape, np.float32) for key, shape in weights.items()}, macs)


def test_products_of_few_bits_count_as_those_of_fractions() -> None:
    attributes = {"K": 32, "N": 4, "bits": 4, "block_size": 16}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain=MS, **attributes)
    weights = {"w": np.zeros((4, 2, 8), np.uint8), "s": np.ones((4, 2), np.float32)}
    check([node], {"x": (FLOAT, 5, 32)}, weights, 5 * 32 * 4)
    node = helper.make_node("QGemm", ["x", "s", "z", "w", "s", "z"], ["y"], domain=MS)
    weights = {"s": np.float32(1), "z": np.uint8(0), "w": np.zeros((6, 4), np.uint8)}
    check([node], {"x": (TensorProto.UINT8, 6)}, weights, 6 * 4)


def test_operators_without_products_are_left_out_and_listed() -> None:
    nodes = [
        helper.make_node("SkipLayerNormalization", ["x", "x", "g"], ["normal"], domain=MS),
        helper.make_node("BiasGelu", ["normal", "g"], ["y"], domain=MS),
    ]
    check(nodes, SEQUENCE, {"g": np.ones(6, np.float32)}, 0, ("BiasGelu", "SkipLayerNormalization"))


def check(
    nodes: list, inputs: dict[str, tuple[int, ...]], weights: dict[str, np.ndarray], macs: int, uncounted: tuple[str, ...] = ()
) -> None:
    """Raise unless the network of `nodes`, with `inputs` of a kind and the sizes of a row, counts `macs`, and leaves out `uncounted`."""
    given = [helper.make_tensor_value_info(name, kind, ["batch", *sizes]) for name, (kind, *sizes) in inputs.items()]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "net", given, [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)], constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9))
    counted = count_macs(model.graph, infer_shapes(model, 1))
    assert (counted.total, counted.uncounted) == (macs, uncounted)
