"""Leaves out inputs that say what holds without them: some opsets want them, and some exporters write them all the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_REGION = "tf_crop_and_resize"  # the only mode of Resize that reads where the region is
_COUNTED_SPLIT = 18  # the opset since which Split may say a number of equal parts


class LeftOutInputs(ir.passes.InPlacePass):
    """Leaves out empty constants in Resize, its region where no mode reads it, zeros that Pad fills in, and equal sizes in Split."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place."""
        opset = model.opset_imports.get("", 0)
        changed = [node for node in model.graph if node.domain in ("", "ai.onnx") and _leave_out(node, opset)]
        return ir.passes.PassResult(model, modified=bool(changed))


def _leave_out(node: ir.Node, opset: int) -> bool:
    """Leave out what says nothing in `node`, and return whether there was such."""
    says_nothing = [
        position
        for position in range(1, len(node.inputs))
        if (node.op_type == "Resize" and _is_void(node, position))
        or (node.op_type == "Pad" and position == 2 and _is_zero(node.inputs[position]))
        or (node.op_type == "Split" and opset >= _COUNTED_SPLIT and _is_even(node.inputs[position]))
    ]
    for position in says_nothing:
        node.replace_input_with(position, None)
        if node.op_type == "Split":
            node.attributes.add(ir.AttrInt64("num_outputs", len(node.outputs)))
    return bool(says_nothing)


def _is_void(resize: ir.Node, position: int) -> bool:
    """Whether an input of Resize is empty, or the region (the first of three) where no mode reads it."""
    values = _constant(resize.inputs[position])
    mode = resize.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    unread = position == 1 and len(resize.inputs) > 2 and mode != _REGION and resize.inputs[position] is not None
    return unread or (values is not None and not values.size)


def _is_zero(value: ir.Value | None) -> bool:
    values = _constant(value)
    return values is not None and values.size == 1 and not values.any()


def _is_even(value: ir.Value | None) -> bool:
    values = _constant(value)
    return values is not None and len(set(values.tolist())) == 1


def _constant(value: ir.Value | None) -> np.ndarray | None:
    return value.const_value.numpy() if value is not None and value.const_value is not None else None
