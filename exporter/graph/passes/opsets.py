"""Brings networks of early opsets to the one that our own are traced in, so that one operator has one form."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from onnxscript import version_converter

_OPSET = 18  # of our own traces; from here to 21 operators keep their form, but for those that are spelt out
_LEAST_IR = 8  # of that opset
_RESIZE = 11  # the opset since which Resize says how it counts pixels
_ASIDE = "espalier.aside"  # a domain that the converter does not know


class RaisedOpset(ir.passes.InPlacePass):
    """Raises the default domain to opset 18, by onnx's converter. The weights stay where they are.

    Until then Squeeze, Split, Pad, ReduceMean and others took as attributes what they take as inputs since. Functions must be inlined.
    What the converter cannot raise stays as it is. Later opsets stay, too: an operator is compared by its own version.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Raise in place."""
        if not is_early(model):
            return ir.passes.PassResult(model, modified=False)
        if not _put_aside(model):
            return ir.passes.PassResult(model, modified=False)
        noted = {value.name: dict(node.metadata_props) for node in model.graph for value in node.outputs}
        logging.getLogger("onnxscript.version_converter").setLevel(logging.CRITICAL)  # what fails stays as it is
        version_converter.ConvertVersionPass(_OPSET, fallback=True)(model)
        done = not is_early(model)
        _take_back(model, done=done)
        if done:
            model.ir_version = max(model.ir_version, _LEAST_IR)
            for node in model.graph:  # the converter keeps no notes of producers, such as their modules' names
                node.metadata_props.update(next((noted[value.name] for value in node.outputs if value.name in noted), {}))
        return ir.passes.PassResult(model, modified=done)


def _put_aside(model: ir.Model) -> bool:
    """Hide the nodes that resize from the converter, which takes their pixels for those of later opsets.

    Return False, and hide none, where the scales of one are no constant input.
    """
    nodes = [node for node in model.graph if node.op_type in ("Upsample", "Resize") and model.opset_imports[""] < _RESIZE]
    if any(_scales(node) is None for node in nodes):
        return False
    for node in nodes:
        node.domain = _ASIDE
    if nodes:
        model.graph.opset_imports[_ASIDE] = 1
    return True


def _take_back(model: ir.Model, *, done: bool) -> None:
    """Bring the nodes back that were put aside, as Resize of opset 18 if the others are of that. ONNX Runtime says how they count."""
    for node in (node for node in model.graph if node.domain == _ASIDE):
        node.domain = ""
        scales = _scales(node)
        if done and scales is not None:
            nearest = "ceil" if (scales < 1).any() else "floor"
            node.op_type = "Resize"
            node.resize_inputs(3)
            node.replace_input_with(2, node.inputs[1])
            node.replace_input_with(1, None)
            node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
            node.attributes.add(ir.AttrString("nearest_mode", nearest))
    model.graph.opset_imports.pop(_ASIDE, None)


def _scales(node: ir.Node) -> np.ndarray | None:
    """Return the scales of a node that resizes if they are a constant."""
    value = node.inputs[1] if len(node.inputs) == 2 else None
    return value.const_value.numpy() if value is not None and value.const_value is not None else None


def is_early(model: ir.Model) -> bool:
    """Return whether `model` is of an opset before the one that networks are brought to."""
    return model.opset_imports.get("", _OPSET) < _OPSET
