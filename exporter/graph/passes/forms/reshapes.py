"""Reshapes and Transposes: targets are sizes as they are, and -1 for the one that varies (`constant_target`); two that follow are one."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph.passes.batch.building import builder_before
from exporter.graph.passes.batch.sizes import Sizes
from exporter.graph.passes.batch.target import constant_target
from exporter.graph.passes.forms.writing import bypass, maker, put, whole


def flatten_as_reshape(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Write a Flatten as the Reshape that it is."""
    target = _target(node, sizes) if node.op_type == "Flatten" else None
    if target is None:
        return False
    put(node, "Reshape", [node.inputs[0], builder_before(node, graph, "target").integers(target)], {}, graph)
    return True


def plain_target(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Write the shape that comes out as the constant target of a Reshape."""
    given = whole(node.inputs[1]) if node.op_type == "Reshape" else None
    target = _target(node, sizes) if given is not None else None
    if target is None or (given == target and not node.attributes.get_int("allowzero", 0)):
        return False
    put(node, "Reshape", [node.inputs[0], builder_before(node, graph, "target").integers(target)], {}, graph)
    return True


def drop_reshape(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Take out a Reshape to the shape that is there."""
    shape = sizes.shape(node.inputs[0]) if node.op_type == "Reshape" else None
    return shape is not None and shape == sizes.shape(node.outputs[0]) and bypass(node)


def join_reshapes(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Reshape at once what is reshaped twice."""
    before = maker(node.inputs[0], "Reshape") if node.op_type == "Reshape" else None
    target = whole(node.inputs[1]) if before is not None else None
    if before is None or target is None:
        return False
    if 0 not in target:
        return _read_further(node, before, sizes)
    # A zero takes over what the first Reshape makes.
    joined = constant_target(sizes.shape(before.inputs[0]), sizes.shape(node.outputs[0]))
    if joined is None or not _read_further(node, before, sizes):
        return False
    put(node, "Reshape", [node.inputs[0], builder_before(node, graph, "joined").integers(joined)], {}, graph)
    return True


def join_transposes(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Transpose at once what is transposed twice."""
    before = maker(node.inputs[0], "Transpose") if node.op_type == "Transpose" else None
    if before is None:
        return False
    inner, outer = (item.attributes.get_ints("perm", ()) for item in (before, node))
    if len(inner) != len(outer) or not outer or not _read_further(node, before, sizes):
        return False
    node.attributes["perm"] = ir.AttrInt64s("perm", [inner[axis] for axis in outer])
    return True


def drop_transpose(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Take out a Transpose that leaves every axis where it is."""
    axes = node.attributes.get_ints("perm", ()) if node.op_type == "Transpose" else ()
    return bool(axes) and tuple(axes) == tuple(range(len(axes))) and bypass(node)


def _read_further(node: ir.Node, before: ir.Node, sizes: Sizes) -> bool:
    """Let `node` read what the node `before` it reads, unless that would take away a tensor that the network can be cut at."""
    if sizes.has_rows(before.outputs[0]) and not sizes.has_rows(before.inputs[0]):
        return False
    node.replace_input_with(0, before.inputs[0])
    return True


def _target(node: ir.Node, sizes: Sizes) -> list[int] | None:
    return constant_target(sizes.shape(node.inputs[0]), sizes.shape(node.outputs[0]))
