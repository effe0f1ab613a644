"""Makes a batch size free that a file fixes to 1, as most exporters do by default.

The network is walked node by node with three rows in the place of one. Where a constant says the one (the target of a Reshape, the sizes
of a Resize, a class token that is put in front of the patches, the first state of an LSTM), it is said anew by what is there. What the
batch gets lost in is named. Whether the rewritten network answers as the one before is for runs to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from exporter.errors import UnsupportedModel
from exporter.graph.foreign import CONTROL_FLOW, is_foreign, operator_name
from exporter.graph.node_shapes import NodeShapes
from exporter.graph.passes.batch.building import Builder, builder_before
from exporter.graph.passes.batch.placing import place_of_batch
from exporter.graph.passes.constants import FoldConstants
from exporter.graph.passes.flow import BodiesAsFunctions
from exporter.graph.shapes import SHAPE_READERS, name_of

_ROWS = 3
_RECURRENT = ("LSTM", "GRU", "RNN")


def has_fixed_batch(model: ir.Model) -> bool:
    """Return whether all inputs of `model` are for one row, and no more."""
    firsts = [next(iter(value.shape or (None,))) for value in model.graph.inputs if value.const_value is None]
    return 1 in firsts and all(first == 1 or not isinstance(first, int) for first in firsts)


def free_batch(name: str, model: ir.Model) -> tuple[str, ...]:
    """Make the batch size of `model` free, in place; return the operators that were changed for it.

    Raises UnsupportedModel, naming the node, where something depends on there being one row.
    """
    for value in model.graph.inputs:
        value.shape = ir.Shape(["batch", *tuple(value.shape or ())[1:]])
    _forget_shapes(model)
    ir.passes.Sequential(
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveInitializersFromInputsPass(),
        FoldConstants(),
        BodiesAsFunctions(),
        common.ShapeInferencePass(check_type=False, strict_mode=False),  # for dtypes
        common.RemoveUnusedNodesPass(),
    )(model)
    _forget_shapes(model)
    return _Walk(name, model).walk()


def _forget_shapes(model: ir.Model) -> None:
    """Forget what is recorded of tensors between inputs and outputs, and of these: it is for one row."""
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None


class _Walk:
    def __init__(self, name: str, model: ir.Model) -> None:
        self._name, self._graph = name, model.graph
        self._one, self._three = NodeShapes(model, 1), NodeShapes(model, _ROWS)
        self._given = set(model.graph)
        self._lost: ir.Node | None = None
        self._ahead: dict[ir.Value | None, int] = {}  # what lies on the axis of the batch, and outside of it: 17 of 17 x batch
        self._changed: list[str] = []

    def walk(self) -> tuple[str, ...]:
        """Rewrite what says one row, and return the operators."""
        for node in list(self._graph):
            self._one.visit(node)
            before = node.inputs
            rewrite = _REWRITES.get(node.op_type)
            if rewrite is not None and not is_foreign(node.domain):
                rewrite(self, node)
            self._visit_three(node)
            if node.inputs != before:
                self._changed.append(node.op_type)
        if self._lost is not None:
            raise self._refusal(self._lost)
        for value in self._graph.outputs:
            one, three = self._one.shape(value), self._three.shape(value)
            if one is None or three is None or three[:1] != (_ROWS,) or one[:1] != (1,):
                raise self._refusal(value.producer())
            value.shape = ir.Shape(["batch", *one[1:]])
        return tuple(dict.fromkeys(self._changed))

    def reshape(self, node: ir.Node) -> None:
        """Leave the dimension that the batch is in to what is there."""
        axis, target = self._axis(node.inputs[0]), self._constant(node.inputs[1])
        source, result = self._one.shape(node.inputs[0]), self._one.shape(node.outputs[0])
        if axis is None or target is None or source is None or result is None:
            return
        ahead = prod(source[:axis]) * self._ahead.get(node.inputs[0], 1)
        place = place_of_batch(axis, source, result, ahead)
        if place is None:
            raise self._refusal(node)
        self._ahead[node.outputs[0]] = ahead // prod(result[:place])
        if target[place] == -1 or (target[place] == 0 and place == axis):
            return
        sizes = [-1 if index == place else size for index, size in enumerate(result)]
        node.replace_input_with(1, builder_before(node, self._graph, "freed").integers(sizes))

    def resize(self, node: ir.Node) -> None:
        """Take the length of the batch from what is resized."""
        axis = self._axis(node.inputs[0])
        sizes = self._constant(node.inputs[3]) if len(node.inputs) > 3 else None
        if axis is None or sizes is None or "axes" in node.attributes or len(sizes) <= axis:
            return
        node.replace_input_with(3, _sizes(builder_before(node, self._graph, "freed"), node.inputs[0], axis, sizes))

    def concat(self, node: ir.Node) -> None:
        """Repeat for each row what is the same for all."""
        axes = {axis for value in node.inputs if (axis := self._axis(value)) is not None}
        along = node.attributes.get_int("axis", 0)
        for position, value in enumerate(node.inputs):
            shape = self._three.shape(value)
            if len(axes) == 1 and shape is not None and self._axis(value) is None:
                (axis,) = axes
                if along % len(shape) != axis and shape[axis] == 1:
                    self._expand(node, position, axis)

    def recurrent(self, node: ir.Node) -> None:
        """Repeat the first states, which are constants, for each row."""
        axis = 0 if node.attributes.get_int("layout", 0) else 1
        for position in range(5, min(len(node.inputs), 7)):
            shape = self._three.shape(node.inputs[position])
            if shape is not None and shape[axis] == 1 and self._axis(node.inputs[0]) == axis:
                self._expand(node, position, axis)

    def squeeze(self, node: ir.Node) -> None:
        """Say which axes go: one row is not to."""
        axis, shape = self._axis(node.inputs[0]), self._one.shape(node.inputs[0])
        if axis is None or shape is None or len(node.inputs) > 1 or "axes" in node.attributes:
            return
        axes = [index for index, size in enumerate(shape) if size == 1 and index != axis]
        if self._opset < 13:
            node.attributes["axes"] = ir.AttrInt64s("axes", axes)
        else:
            constant = builder_before(node, self._graph, "freed").integers(axes)
            node.resize_inputs(2)
            node.replace_input_with(1, constant)
        self._one.visit(node)

    def _expand(self, node: ir.Node, position: int, axis: int) -> None:
        value = node.inputs[position]
        source = next(item for item in node.inputs if self._axis(item) == axis)
        build = builder_before(node, self._graph, f"freed{position}")
        sizes = _sizes(build, source, axis, self._one.shape(value) or ())
        expanded = build.node("Expand", [value, sizes], dtype=value.dtype if value is not None else None)
        node.replace_input_with(position, expanded)

    @property
    def _opset(self) -> int:
        return self._graph.opset_imports.get("", 1)

    def _axis(self, value: ir.Value | None) -> int | None:
        """Return the only axis of `value` whose length depends on the number of rows."""
        one, three = self._one.shape(value), self._three.shape(value)
        if one is None or three is None or len(one) != len(three):
            return None
        axes = [axis for axis, sizes in enumerate(zip(one, three, strict=True)) if sizes[0] != sizes[1]]
        return axes[0] if len(axes) == 1 else None

    def _is_same(self, value: ir.Value) -> bool:
        """Whether `value` has one shape, which is known, for any number of rows."""
        one, three = self._one.shape(value), self._three.shape(value)
        return one is not None and one == three

    def _constant(self, value: ir.Value | None) -> list[int] | None:
        """Return the whole numbers in `value`, if they do not depend on the number of rows."""
        one, three = self._one.content(value), self._three.content(value)
        if one is None or three is None or not np.array_equal(one, three):
            return None
        return [int(number) for number in one.reshape(-1)]

    def _visit_three(self, node: ir.Node) -> None:
        """Take note of the results of `node` and of what was put before it."""
        for before in self._new_before(node):
            self._one.visit(before)
            self._visit(before)
        self._visit(node)
        ahead = max((self._ahead.get(value, 1) for value in node.inputs), default=1)
        if ahead > 1 and node.op_type != "Reshape":
            self._ahead.update(dict.fromkeys(node.outputs, ahead))
        has_batch = any(self._axis(value) is not None for value in node.inputs)
        fails = node.domain == CONTROL_FLOW and any(self._three.shape(value) is None for value in node.outputs)
        if has_batch and node.op_type not in SHAPE_READERS and (fails or all(map(self._is_same, node.outputs))):
            self._lost = self._lost or node

    def _visit(self, node: ir.Node) -> None:
        try:
            self._three.visit(node)
        except Exception as error:  # onnx's inference says so in several ways
            raise self._refusal(node) from error

    def _new_before(self, node: ir.Node) -> list[ir.Node]:
        """Return the nodes that `node` needs and that have not been visited, in order."""
        found: list[ir.Node] = []
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer not in self._given and producer not in found:
                found += [*self._new_before(producer), producer]
        return found

    def _refusal(self, node: ir.Node | None) -> UnsupportedModel:
        label = f"{operator_name(node)} (node {node.name or name_of(node.outputs[0])!r})" if node is not None else "an output"
        why = f"the batch size is fixed to 1, and {label} may depend on it; export it with a dynamic first dimension."
        return UnsupportedModel(self._name, why)


def _sizes(build: Builder, source: ir.Value | None, axis: int, sizes: Sequence[int]) -> ir.Value:
    """Return `sizes`, with the length that `source` has on its `axis` in that place."""
    length = build.node("Gather", [build.node("Shape", [source]), build.integers([axis])], {"axis": 0})
    parts = [length if index == axis else build.integers([size]) for index, size in enumerate(sizes)]
    return build.node("Concat", parts, {"axis": 0}) if len(parts) > 1 else length


_REWRITES: dict[str, Callable[[_Walk, ir.Node], None]] = {
    "Reshape": _Walk.reshape,
    "Resize": _Walk.resize,
    "Concat": _Walk.concat,
    "Squeeze": _Walk.squeeze,
    **dict.fromkeys(_RECURRENT, _Walk.recurrent),
}
