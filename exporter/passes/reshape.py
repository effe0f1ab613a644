"""Takes batch-size arithmetic out of Reshape.

With a dynamic batch, exporters compute the batch size from the graph's input (`Shape(image)`) and feed it to every Reshape. That ties
all blocks to the input: no tensor but the image would be a cut point. Where only one dimension of the result is unknown, -1 says the
same and depends on nothing.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


class StaticReshape(ir.passes.InPlacePass):
    """Replaces a computed Reshape target by a constant with a single -1, where the known output shape allows it."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place."""
        changed = [node for node in model.graph if _make_static(node, model.graph)]
        return ir.passes.PassResult(model, modified=bool(changed))


def _make_static(node: ir.Node, graph: ir.Graph) -> bool:
    if node.op_type != "Reshape" or node.domain not in ("", "ai.onnx"):
        return False
    if node.inputs[1] is None or node.inputs[1].const_value is not None:
        return False
    target = _target(node.outputs[0].shape)
    if target is None:
        return False
    constant = ir.Value(name=f"{node.outputs[0].name}_shape", const_value=ir.tensor(np.array(target, dtype=np.int64)))
    constant.shape, constant.type = ir.Shape([len(target)]), ir.TensorType(ir.DataType.INT64)
    graph.register_initializer(constant)
    node.replace_input_with(1, constant)
    return True


def _target(shape: ir.Shape | None) -> list[int] | None:
    """Return the shape with its one unknown dimension as -1, or None if more than one is unknown or one is empty."""
    if shape is None:
        return None
    dims = [dim if isinstance(dim, int) else -1 for dim in shape]
    return dims if dims.count(-1) <= 1 and 0 not in dims else None
