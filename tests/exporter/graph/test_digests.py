"""A digest must not depend on whether a model was in memory or in a file before."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from exporter.graph.digests import addresses, block_digest
from tests.exporter.graph.passes.graphs import parse


def test_a_float_attribute_counts_as_a_file_holds_it() -> None:
    image = ir.Value(name="image", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 4]))
    # torch's exporter keeps Python's 0.1 in memory; a file has float32.
    node = ir.node("Elu", [image], {"alpha": ir.AttrFloat32("alpha", 0.1), "more": ir.AttrFloat32s("more", [0.1, 0.2])})
    model = ir.Model(ir.Graph([image], node.outputs, nodes=[node], opset_imports={"": 18}), ir_version=10)
    read = ir.from_proto(ir.to_proto(model))
    ours, theirs = (addresses(net.graph, net.opset_imports)[net.graph.outputs[0]] for net in (model, read))
    assert ours == theirs


IMAGE = "float[batch, 4, 6, 6] image"


def digest(body: str, opset: int, image: str = IMAGE) -> str:
    model = parse(body, image, opset=opset)
    return block_digest(list(model.graph), model.graph.inputs, model.graph.outputs, model.opset_imports)


def test_an_operator_counts_by_its_own_version() -> None:
    relu, pool = "logits = Relu(image)", "logits = AveragePool <kernel_shape = [2, 2]> (image)"
    assert len({digest(relu, opset) for opset in (7, 13, 14, 18, 21)}) == 1
    assert digest(pool, 11) == digest(pool, 18) == digest(pool, 21)
    ceiled = pool.replace("= [2, 2]", "= [2, 2], ceil_mode = 1")
    assert digest(ceiled, 11) == digest(ceiled, 18) != digest(ceiled, 19)


@pytest.mark.parametrize(
    ("said", "left_out", "other"),
    [
        ("Softmax <axis = -1>", "Softmax", "Softmax <axis = 1>"),
        ("LayerNormalization <epsilon = 1e-5>", "LayerNormalization", "LayerNormalization <epsilon = 1e-6>"),
        ("Elu <alpha = 1.0>", "Elu", "Elu <alpha = 0.5>"),
        ('Gelu <approximate = "none">', "Gelu", 'Gelu <approximate = "tanh">'),
    ],
)
def test_a_default_that_is_written_out_is_one_that_is_not(said: str, left_out: str, other: str) -> None:
    inputs = "(image, image)" if "Layer" in said else "(image)"
    one, two, three = (digest(f"logits = {operator}{inputs}", 20) for operator in (said, left_out, other))
    assert one == two != three


def test_inputs_that_are_left_out_at_the_end_are_none() -> None:
    assert digest("logits = Clip(image, , )", 18) == digest("logits = Clip(image)", 18)
    low, high = (digest(f"low = CastLike(image, image) logits = Clip(image, {rest})", 18) for rest in ("low", ", low"))
    assert low != high
