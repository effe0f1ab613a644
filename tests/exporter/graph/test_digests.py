"""A digest must not depend on whether a model was in memory or in a file before."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph.digests import addresses


def test_a_float_attribute_counts_as_a_file_holds_it() -> None:
    image = ir.Value(name="image", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 4]))
    # torch's exporter keeps Python's 0.1 in memory; a file has float32.
    node = ir.node("Elu", [image], {"alpha": ir.AttrFloat32("alpha", 0.1), "more": ir.AttrFloat32s("more", [0.1, 0.2])})
    model = ir.Model(ir.Graph([image], node.outputs, nodes=[node], opset_imports={"": 18}), ir_version=10)
    read = ir.from_proto(ir.to_proto(model))
    ours, theirs = (addresses(net.graph, net.opset_imports)[net.graph.outputs[0]] for net in (model, read))
    assert ours == theirs
