"""Operators through which the rows of a batch may affect each other, found from the graph and its shapes at two batch sizes.

An axis whose size differs between the two has the batch on it, alone (rows) or with something else (the windows of all rows). What mixes
such an axis, loses it, or doubles it, mixes rows: by arithmetic, or by putting them elsewhere. Whether answers really differ is for runs
to say (contract/repository/rows.py); the rule says where to look, and names what is to blame.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import onnx_ir as ir

from exporter.graph.foreign import operator_name
from exporter.graph.mixing import REARRANGING, mixed_axes
from exporter.graph.modules import module_path
from exporter.graph.shapes import RANDOM, SHAPE_READERS, Inferred, name_of

# random: another answer each time. batch_wide: rounds, or chooses, by what is in the whole batch, as its users know. mixes: rows meet.
# unknown: nothing can be said of it here.
SuspectKind = Literal["random", "batch_wide", "mixes", "unknown"]
_BATCH_WIDE = frozenset(
    ("DynamicQuantizeLinear", "NonMaxSuppression", "com.microsoft.DynamicQuantizeMatMul", "com.microsoft.DynamicQuantizeLSTM")
)
# Take from, or put, places that other numbers name; join and divide axes. Rows may end up elsewhere, or where they were.
_MOVING = frozenset(("Concat", "Split", "Tile", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Scatter"))
_SIZING = frozenset(("Slice", "Pad", "Resize", "Upsample"))
# Inputs that say how large or where, and are no numbers to compute with.
_SIZE_INPUTS = {
    **dict.fromkeys(("Reshape", "Expand", "Tile", "Pad", "Unsqueeze", "Squeeze", "TopK", "Split", "OneHot", "AffineGrid"), (1,)),
    **dict.fromkeys(("Slice", "Resize"), (1, 2, 3, 4)),
    "ConstantOfShape": (0,),
}
_PLACES = frozenset(("Gather", "GatherND", "GatherElements", "ScatterND", "ScatterElements", "Scatter"))
_CLASSES = "pkg.torch.onnx.class_hierarchy"


@dataclass(frozen=True)
class Suspect:
    """An operator that the rows of a batch may meet in. module: its place in the network, where the producer recorded it."""

    operator: str
    kind: SuspectKind
    module: str = ""

    def __str__(self) -> str:
        return f"{self.operator} in {self.module!r}" if self.module else self.operator


def find_suspects(model: ir.Model, one: Inferred, other: Inferred) -> dict[ir.Node, Suspect]:
    """Return the suspects of the canonical `model` by node. one, other: what is known of its tensors at two batch sizes, the first 1."""
    finder = _Finder(one, other, model.opset_imports.get("", 1), _random_flow(model))
    finder.of_data.update(model.graph.inputs)
    found = {node: kind for node in model.graph if (kind := finder.visit(node)) is not None}
    return {node: Suspect(_operator(node, kind), kind, ".".join(module_path(node))) for node, kind in found.items()}


def random_suspects(model: ir.Model) -> tuple[Suspect, ...]:
    """Return the operators of `model` that give another result each time."""
    return tuple(
        Suspect(_operator(node, "random"), "random", ".".join(module_path(node)))
        for node in model.graph
        if _is_random(node) or node.op_identifier() in _random_flow(model)
    )


def _random_flow(model: ir.Model) -> frozenset[ir.OperatorIdentifier]:
    """Return the control flow of `model` in which something is random."""
    return frozenset(key for key, function in model.functions.items() if any(map(_is_random, function.all_nodes())))


class _Finder:
    """Goes through a graph in topological order. of_data: what depends on the contents of the input."""

    def __init__(self, one: Inferred, other: Inferred, opset: int, random: Collection[ir.OperatorIdentifier] = ()) -> None:
        self._one, self._other, self._opset, self._random = one, other, opset, random
        self.of_data: set[ir.Value | None] = set()
        self._counts: set[ir.Value | None] = set()  # whose contents depend on the number of rows
        self._outer: dict[ir.Value | None, int] = {}  # how often all rows lie one after the other on the axis of the batch

    def visit(self, node: ir.Node) -> SuspectKind | None:
        """Return why `node` is suspect, if it is, and take note of its results."""
        if _is_random(node) or node.op_identifier() in self._random:
            self.of_data.update(node.outputs)
            return "random"
        if not any(value in self.of_data for value in node.inputs) or node.op_type in SHAPE_READERS:
            self._count(node)
            return None
        self.of_data.update(node.outputs)
        kind = self._judge(node)
        if kind != "mixes" and self._takes_count(node):
            kind = "mixes" if _is_float(node.outputs[0]) else kind
            self._counts.update(node.outputs if kind != "mixes" else ())
        self._place(node)
        return kind

    def _judge(self, node: ir.Node) -> SuspectKind | None:
        name = operator_name(node)
        if name in _BATCH_WIDE:
            return "batch_wide"
        used = [value for value in node.outputs if value.uses() or value.is_graph_output()]
        given = [value for value in node.inputs if value in self.of_data]
        if any(self._axes(value) is None for value in (*given, *used)):
            return "mixes" if self._mixes(node, name) else "unknown"
        before = max(len(self._batch(value)) for value in given)
        after = [len(self._batch(value)) for value in used]
        if before and (0 in after or any(count > max(before, 1) for count in after)):
            return "mixes"  # an axis of rows is lost, or meets another one
        if self._mixes(node, name):
            return "mixes"
        return "unknown" if self._is_unsure(node, name) else None

    def _mixes(self, node: ir.Node, name: str) -> bool:
        """Whether `node` mixes an axis with the batch on it, as far as shapes are known."""
        if name in _SIZING:
            return not self._keeps_size(node, name)
        if name == "Gather":
            axis = node.attributes.get_int("axis", 0)
            return self._has(node.inputs[0], [axis]) and node.inputs[1] not in self._counts
        mixed = self._mixed(node, name)
        return any(self._has(node.inputs[position], axes) for position, axes in (mixed or {}).items())

    def _is_unsure(self, node: ir.Node, name: str) -> bool:
        if name in _MOVING:
            return self._moves(node, name)
        if name == "Gather":
            return self._has(node.inputs[0], [node.attributes.get_int("axis", 0)])
        if name in REARRANGING:
            return self._rearranged(node) is None
        if name == "MaxPool" and len(node.outputs) > 1 and node.outputs[1].uses():
            return True  # places, counted from the first row on
        known = name in _SIZING or self._mixed(node, name) is not None
        return not known or len({self._outer.get(value, 1) for value in node.inputs if self._batch(value)}) > 1

    def _mixed(self, node: ir.Node, name: str) -> dict[int, Collection[int]] | None:
        if "." in name:
            return None
        rank = [len(self._one.shapes.get(name_of(value), ())) for value in node.inputs]
        mixed = mixed_axes(node, rank, self._opset, self._contents)
        return None if mixed is None else {position: axes for position, axes in mixed.items() if position < len(rank)}

    def _keeps_size(self, node: ir.Node, name: str) -> bool:
        """Whether the batch is as it was after a Slice, Pad or Resize: as long, and from the first row on."""
        source, result = node.inputs[0], node.outputs[0]
        axes = self._batch(source)
        sizes = [(self._size(source, axis), self._size(result, axis)) for axis in axes]
        if any(before != after for before, after in sizes):
            return False
        return name != "Slice" or not axes or all(step == (0, 1) for step in self._steps(node, axes))

    def _steps(self, node: ir.Node, axes: Collection[int]) -> Iterator[tuple[int, int]]:
        """Yield where a Slice begins, and its step, on each of `axes` that it is for; (-1, 0) where that is not known."""
        rank = len(self._one.shapes.get(name_of(node.inputs[0]), ()))
        starts = self._contents(node.inputs[1]) or []
        along = self._given(node, 3, [*range(len(starts))])
        steps = self._given(node, 4, [1] * len(starts))
        if not len(starts) == len(along) == len(steps) > 0:
            yield -1, 0
            return
        yield from ((start, step) for start, axis, step in zip(starts, along, steps, strict=True) if axis % rank in axes)

    def _given(self, node: ir.Node, position: int, default: list[int]) -> list[int]:
        value = node.inputs[position] if position < len(node.inputs) else None
        return default if value is None else self._contents(value) or []

    def _moves(self, node: ir.Node, name: str) -> bool:
        source = node.inputs[0]
        if name in ("Concat", "Split", "GatherElements", "ScatterElements", "Scatter"):
            axis = node.attributes.get_int("axis", 0)
            return any(self._has(value, [axis]) for value in (node.inputs if name == "Concat" else [source]))
        if name == "Tile":
            return any(self._size(source, axis) != self._size(node.outputs[0], axis) for axis in self._batch(source))
        first = node.attributes.get_int("batch_dims", 0)
        named = self._one.shapes.get(name_of(node.inputs[1]), (1,))[-1]
        return self._has(source, range(first, first + named))

    def _place(self, node: ir.Node) -> None:
        """Take note of how the rows of the results lie."""
        outer = max((self._outer.get(value, 1) for value in node.inputs), default=1)
        if node.op_type in REARRANGING:
            outer = self._rearranged(node) or 1
        if node.op_type in ("Concat", "Tile", "Split") and self._moves(node, node.op_type):
            outer = self._stacked(node, outer)
        if outer > 1:
            self._outer.update(dict.fromkeys(node.outputs, outer))

    def _stacked(self, node: ir.Node, outer: int) -> int:
        (axis, *_) = [*self._batch(node.outputs[0]), 0]
        before, after = self._size(node.inputs[0], axis)[0], self._size(node.outputs[0], axis)[0]
        return max(outer * after // max(before, 1), 1)

    def _rearranged(self, node: ir.Node) -> int | None:
        """Return how often all rows follow each other on their axis after a Reshape; None where rows no longer lie on one axis."""
        source, result = node.inputs[0], node.outputs[0]
        before, after = self._batch(source), self._batch(result)
        if len(before) != 1 or len(after) != 1:
            return 1
        shape, new = self._one.shapes[name_of(source)], self._one.shapes[name_of(result)]
        outer = prod(shape[: min(before)]) * self._outer.get(source, 1)
        ahead = prod(new[: min(after)])
        if not ahead or outer % ahead or new[min(after)] % (outer // ahead):
            return None
        return outer // ahead

    def _count(self, node: ir.Node) -> None:
        """Take note of results that depend on the number of rows, and on nothing else of the input."""
        if node.op_type in SHAPE_READERS:
            counts = self._axes(node.inputs[0]) != frozenset()
        else:
            counts = self._takes_count(node) or (node.op_type in _PLACES and any(value in self._counts for value in node.inputs))
        if counts:
            self._counts.update(value for value in node.outputs if not self._is_same(value))

    def _takes_count(self, node: ir.Node) -> bool:
        sizes = _SIZE_INPUTS.get(node.op_type, (1,) if node.op_type in _PLACES or node.op_type.startswith("Reduce") else ())
        return any(value in self._counts for position, value in enumerate(node.inputs) if position not in sizes)

    def _is_same(self, value: ir.Value) -> bool:
        one, other = (known.contents.get(name_of(value)) for known in (self._one, self._other))
        return one is not None and other is not None and np.array_equal(one, other)

    def _axes(self, value: ir.Value | None) -> frozenset[int] | None:
        """Return the axes of `value` with the batch on them; None where its shape is not known."""
        one, other = (known.shapes.get(name_of(value)) for known in (self._one, self._other))
        if one is None or other is None or len(one) != len(other):
            return None
        return frozenset(axis for axis, sizes in enumerate(zip(one, other, strict=True)) if sizes[0] != sizes[1])

    def _batch(self, value: ir.Value | None) -> frozenset[int]:
        return (self._axes(value) or frozenset()) if value in self.of_data else frozenset()

    def _has(self, value: ir.Value | None, axes: Collection[int]) -> bool:
        rank = len(self._one.shapes.get(name_of(value), ()))
        return not self._batch(value).isdisjoint(axis % max(rank, 1) for axis in axes)

    def _size(self, value: ir.Value | None, axis: int) -> tuple[int, int]:
        """Return the length of an axis at the two batch sizes; (0, 0) where it is not known."""
        one, other = (known.shapes.get(name_of(value), ()) for known in (self._one, self._other))
        return (one[axis], other[axis]) if axis < len(one) and axis < len(other) else (0, 0)

    def _contents(self, value: ir.Value | None) -> list[int] | None:
        """Return the whole numbers in `value` if they are the same at both batch sizes."""
        if value is None or not (value.const_value is not None or self._is_same(value)):
            return None
        numbers = value.const_value.numpy() if value.const_value is not None else self._one.contents[name_of(value)]
        return [int(number) for number in np.reshape(numbers, -1)]


def _is_random(node: ir.Node) -> bool:
    """Return whether `node` gives another result each time."""
    if node.op_type == "Dropout" and node.domain in ("", "ai.onnx"):
        training = node.inputs[2] if len(node.inputs) > 2 else None
        return training is not None and (training.const_value is None or bool(training.const_value.numpy()))
    return node.op_type in RANDOM


def _operator(node: ir.Node, kind: SuspectKind) -> str:
    """Return what `node` is called to people."""
    name = operator_name(node)
    if kind == "random":
        return f"{name} in training mode" if name == "Dropout" else name
    if name == "BatchNormalization" and kind == "mixes":
        return "BatchNormalization in training mode"
    if kind == "mixes" and any("BatchNorm" in part for part in _classes(node)):
        return f"{name} of a BatchNorm without running statistics"
    return name


def _classes(node: ir.Node) -> list[str]:
    """Return the classes of the modules that `node` comes from, as torch's exporter records them."""
    try:
        return [str(name) for name in ast.literal_eval(node.metadata_props.get(_CLASSES, "[]"))]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return []


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()
