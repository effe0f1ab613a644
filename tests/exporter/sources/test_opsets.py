from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.errors import BadModel
from exporter.sources.assumed import assumed
from exporter.sources.onnx_file import load_onnx
from exporter.sources.sandbox import analyse
from tests.exporter.graphs import Net
from tests.exporter.sources.strangers import CLASSES, FEATURES, answers, given, images, save, stranger


@pytest.mark.parametrize("opset", [22, 23, 24])
def test_a_later_opset_that_nothing_needs(tmp_path: Path, opset: int) -> None:
    proto = Net(blocks=(1,)).proto()
    proto.graph.node[3].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'stem']")
    earlier = analyse("net", load_onnx(save(tmp_path, proto)))[1]
    proto.opset_import[0].version = opset
    model = load_onnx(save(tmp_path, proto))
    assert assumed(model) == (f"was brought from opset {opset} down to 21.",)
    assert model.opset_imports[""] == 21
    chain = analyse("net", model)[1]
    assert [block.modules for block in chain.blocks] == [block.modules for block in earlier.blocks]


def test_functions_are_brought_down_too(tmp_path: Path) -> None:
    proto = stranger([helper.make_node("F", ["features"], ["f"], domain="local")], "f", opset=22, domains=[("local", 1)])
    body = [helper.make_node("HardSwish", ["x"], ["y"])]
    proto.functions.append(helper.make_function("local", "F", ["x"], ["y"], body, [helper.make_opsetid("", 22)]))
    path = save(tmp_path, proto)
    np.testing.assert_allclose(answers(path, images(3))[0], given(path, images(3))[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        (helper.make_node("Swish", ["features"], ["new"]), 24),
        (helper.make_node("RMSNormalization", ["features", "scale"], ["new"], axis=-1), 23),
    ],
)
def test_operators_that_are_made_of_earlier_ones_are_spelt_out(tmp_path: Path, node, opset: int) -> None:  # type: ignore[no-untyped-def]
    scale = numpy_helper.from_array(np.linspace(0.5, 2, FEATURES, dtype=np.float32), "scale")
    path = save(tmp_path, stranger([node], "new", [scale], opset=opset))
    assert assumed(load_onnx(path)) == (f"was brought from opset {opset} down to 21, {node.op_type} spelt out.",)
    np.testing.assert_allclose(answers(path, images(3))[0], given(path, images(3))[0], rtol=1e-4)


@pytest.mark.parametrize("opset", [23, 24])
def test_attention_is_spelt_out(tmp_path: Path, opset: int) -> None:
    shapes = [
        numpy_helper.from_array(np.array(shape), name) for name, shape in (("heads", [0, 2, 2, 2]), ("flat", [0, FEATURES]))
    ]
    nodes = [
        helper.make_node("Reshape", ["features", "heads"], ["split"]),
        helper.make_node("Attention", ["split", "split", "split"], ["attended"]),
        helper.make_node("Reshape", ["attended", "flat"], ["new"]),
    ]
    path = save(tmp_path, stranger(nodes, "new", shapes, opset=opset))
    np.testing.assert_allclose(answers(path, images(3))[0], given(path, images(3))[0], rtol=1e-4)
    assert analyse("net", load_onnx(path))[1].blocks[-1].outputs[0].shape == (CLASSES,)


def test_an_operator_that_came_later_is_named(tmp_path: Path) -> None:
    node = helper.make_node("CumProd", ["features", "axis"], ["new"], name="product")
    path = save(tmp_path, stranger([node], "new", [numpy_helper.from_array(np.array(1), "axis")], opset=26))
    words = r"uses opset 26 and needs it for the operator CumProd \(node 'product'\); export it with an opset from 7 to 21"
    with pytest.raises(BadModel, match=words):
        load_onnx(path)


def test_an_attribute_that_came_later_is_named_unless_it_says_what_holds_anyway(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["features"], ["new"], to=TensorProto.FLOAT, round_mode="nearest")
    with pytest.raises(BadModel, match="needs it for the attribute 'round_mode' of Cast"):
        load_onnx(save(tmp_path, stranger([node], "new", opset=24)))
    node.attribute[0].s = b"up"
    assert load_onnx(save(tmp_path, stranger([node], "new", opset=24))).graph.num_nodes() == 6
