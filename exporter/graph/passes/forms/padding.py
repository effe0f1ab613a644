"""Zeros around an image: a convolution has them among its attributes."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph.passes.batch.sizes import Sizes
from exporter.graph.passes.forms.writing import bypass, maker, numbers, whole


def drop_padding(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Take out a Pad that adds nothing."""
    pads = whole(node.inputs[1]) if node.op_type == "Pad" and len(node.inputs) > 1 else None
    return pads is not None and not any(pads) and bypass(node)


def pad_in_convolution(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Give a convolution the zeros that a Pad puts around its input, and nobody else's.

    What else reads the Pad would then be its only reader, and ONNX Runtime lets a MaxPool pad with zeros so, where it pads with
    minus infinity.
    """
    before = maker(node.inputs[0], "Pad") if node.op_type == "Conv" else None
    shape = sizes.shape(node.inputs[0]) if before is not None else None
    if before is None or shape is None or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return False
    added = _zeros_around(before, len(shape))
    own = node.attributes.get_ints("pads", [0] * (2 * len(shape) - 4))
    if added is None or own is None:
        return False
    node.attributes["pads"] = ir.AttrInt64s("pads", [left + right for left, right in zip(own, added, strict=True)])
    node.replace_input_with(0, before.inputs[0])
    return True


def _zeros_around(pad: ir.Node, rank: int) -> list[int] | None:
    """Return the zeros in front of each spatial axis and behind; None if the Pad does anything else."""
    mode = pad.attributes.get_string("mode", "constant")
    pads = whole(pad.inputs[1]) if len(pad.inputs) in (2, 3) else None  # with axes it says less than all
    filled = numbers(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] is not None else 0
    if mode != "constant" or pads is None or len(pads) != 2 * rank or filled is None or filled != 0:
        return None
    return pads[2:rank] + pads[rank + 2 :] if min(pads) >= 0 and not any((*pads[:2], *pads[rank : rank + 2])) else None
