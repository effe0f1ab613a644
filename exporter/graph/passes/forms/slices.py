"""Parts of a tensor: each is a Slice of its own, with its bounds inside the tensor."""

from __future__ import annotations

from itertools import accumulate, pairwise

import onnx_ir as ir

from exporter.graph.passes.batch.building import builder_before
from exporter.graph.passes.batch.sizes import Sizes
from exporter.graph.passes.forms.writing import bypass, put, whole


def split_as_slices(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Write a Split along an axis of known size as a Slice for each part."""
    shapes = [sizes.shape(value) for value in (node.inputs[0], *node.outputs)] if node.op_type == "Split" else [None]
    rank = len(shapes[0] or ())
    axis = node.attributes.get_int("axis", 0) or 0
    if None in shapes or not -rank <= axis < rank or any(value.is_graph_output() for value in node.outputs):
        return False
    lengths = [shape[axis] for shape in shapes[1:] if shape is not None]
    if not all(length.is_constant for length in lengths):
        return False
    build = builder_before(node, graph, "part")
    bounds = pairwise(accumulate((length.offset for length in lengths), initial=0))
    for value, (start, end) in zip(node.outputs, bounds, strict=True):
        part = build.node("Slice", [node.inputs[0], *(build.integers([number]) for number in (start, end, axis % rank))])
        ir.convenience.replace_all_uses_with(value, part)
        part.type, producer = value.type, part.producer()
        if producer is not None:
            producer.metadata_props.update(node.metadata_props)
    return True


def plain_slice(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Write bounds as numbers from 0 to the size of the axis, axes from 0 on and in order, and no steps where all are one."""
    shape = sizes.shape(node.inputs[0]) if node.op_type == "Slice" and len(node.inputs) > 3 else None
    given = [whole(value) for value in node.inputs[1:]]
    if shape is None or any(entries is None for entries in given):
        return False
    starts, ends, axes, *steps = [entries or [] for entries in given]
    if any(step != 1 for step in (steps or [[]])[0]) or not all(shape[axis].is_constant for axis in axes):
        return False
    parts = sorted(
        _bounds(axis % len(shape), start, end, shape[axis].offset) for axis, start, end in zip(axes, starts, ends, strict=True)
    )
    plain = [[part[column] for part in parts] for column in (1, 2, 0)]
    if not steps and plain == [starts, ends, axes]:
        return False
    build = builder_before(node, graph, "bounds")
    put(node, "Slice", [node.inputs[0], *map(build.integers, plain)], {}, graph)
    return True


def _bounds(axis: int, start: int, end: int, size: int) -> tuple[int, int, int]:
    first, last = (min(max(number + size if number < 0 else number, 0), size) for number in (start, end))
    return axis, first, last


def drop_slice(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Take out a Slice of everything, forwards."""
    steps = whole(node.inputs[4]) if node.op_type == "Slice" and len(node.inputs) > 4 else [1]
    shape = sizes.shape(node.inputs[0]) if node.op_type == "Slice" and steps is not None and min(steps) > 0 else None
    return shape is not None and shape == sizes.shape(node.outputs[0]) and bypass(node)
