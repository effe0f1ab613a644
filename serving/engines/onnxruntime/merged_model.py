"""Several segments that take the same as one ONNX model: their graphs side by side, linear layers of one form as one product.

Weights of stacked layers lie one after the other, so that each output is a part of the product's last axis. Every other segment keeps
its nodes as they are. Which operators there are decides, not what anything is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from contract.dtypes import Array
from contract.repository.model import SEGMENT_INPUT, segment_tensor

_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0}


class Place(NamedTuple):
    """Where an output of a segment is: in the output `result` of the merged model, from `start` to `stop` of its last axis; stop 0: all."""

    result: int
    start: int = 0
    stop: int = 0


@dataclass(frozen=True)
class MergedModel:
    """model: takes what each of the segments takes. places: of their outputs, one segment after the other."""

    model: onnx.ModelProto
    places: tuple[Place, ...]


class NotMergeable(Exception):
    """Why a model cannot be merged, a clause. number: which one, from 0."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


@dataclass(frozen=True)
class _Linear:
    """weight: as the product takes it; outputs are on `axis`. form: of those that can be stacked, all is equal."""

    form: tuple[object, ...]
    axis: int
    weight: Array
    bias: Array | None

    @property
    def size(self) -> int:
        return int(self.weight.shape[self.axis])


def merge(models: Sequence[onnx.ModelProto]) -> MergedModel:
    """Return the segments' `models`, one at least, as one. Raises NotMergeable."""
    first = models[0]
    for number, model in enumerate(models):
        _check(number, model, first)
    merged = _Merged()
    places = [merged.add(number, model) for number, model in enumerate(models)]
    merged.finish()
    graph = helper.make_graph(merged.nodes, "bundle", list(first.graph.input), merged.outputs, merged.weights)
    proto = helper.make_model(graph, opset_imports=first.opset_import, ir_version=first.ir_version)
    return MergedModel(proto, tuple(where() for found in places for where in found))


class _Merged:
    """A graph that grows. Stacked products come last."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._stacks: dict[tuple[object, ...], list[_Linear]] = {}
        self._results: dict[tuple[object, ...], int] = {}

    def add(self, number: int, model: onnx.ModelProto) -> Sequence[Callable[[], Place]]:
        """Take a segment in; return what says, in the end, where its outputs are."""
        linear = _linear(model)
        if linear is not None:
            stack = self._stacks.setdefault(linear.form, [])
            start = sum(other.size for other in stack)
            stack.append(linear)
            return [lambda: Place(self._results[linear.form], start, start + linear.size)]
        prefix = f"{number}/"
        self.nodes += [_renamed(node, prefix, model) for node in model.graph.node]
        for weight in model.graph.initializer:
            self.weights.append(TensorProto())
            self.weights[-1].CopyFrom(weight)
            self.weights[-1].name = prefix + weight.name
        found = [partial(Place, len(self.outputs) + place) for place in range(len(model.graph.output))]
        self.outputs += [_named(output, prefix + output.name) for output in model.graph.output]
        return found

    def finish(self) -> None:
        """Write the products."""
        for number, (form, stack) in enumerate(self._stacks.items()):
            self._results[form] = len(self.outputs)
            name = f"stack-{number}"
            weights = [np.concatenate([one.weight for one in stack], stack[0].axis)]
            weights += [np.concatenate([one.bias for one in stack if one.bias is not None])] if stack[0].bias is not None else []
            names = [f"{name}/{place}" for place in range(len(weights))]
            self.weights += [numpy_helper.from_array(values, its) for values, its in zip(weights, names, strict=True)]
            self.nodes += _product(form, name, names)
            rank = form[-1]
            assert isinstance(rank, int)
            self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank))


def _product(form: tuple[object, ...], name: str, weights: Sequence[str]) -> list[onnx.NodeProto]:
    source = segment_tensor(SEGMENT_INPUT, 0)
    if form[0] == "Gemm":
        return [helper.make_node("Gemm", [source, *weights], [name], name=name, transB=int(bool(form[1])))]
    if len(weights) == 1:
        return [helper.make_node("MatMul", [source, *weights], [name], name=name)]
    product = helper.make_node("MatMul", [source, weights[0]], [f"{name}/product"], name=f"{name}/product")
    return [product, helper.make_node("Add", [f"{name}/product", weights[1]], [name], name=name)]


def _linear(model: onnx.ModelProto) -> _Linear | None:
    """Return the linear layer that is all of `model`; None: it is something else."""
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    kinds = [node.op_type for node in graph.node]
    if len(graph.input) != 1 or len(graph.output) != 1 or any(node.domain for node in graph.node):
        return None
    rank = len(graph.input[0].type.tensor_type.shape.dim)
    first, source = graph.node[0], graph.input[0].name
    if kinds == ["Gemm"] and list(graph.node[0].output) == [graph.output[0].name] and first.input[0] == source:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in first.attribute}
        transposed = given.pop("transB", 0)
        bias = first.input[2] if len(first.input) > 2 else ""
        plain = {**_GEMM, **given} == _GEMM
        form: tuple[object, ...] = ("Gemm", transposed)
        return _layer(form, 0 if transposed else 1, weights, first.input[1], bias, rank) if plain else None
    if kinds == ["MatMul"] and first.input[0] == source:
        return _layer(("MatMul",), 1, weights, first.input[1], "", rank)
    if kinds == ["MatMul", "Add"] and first.input[0] == source:
        others = [name for name in graph.node[1].input if name != first.output[0]]
        return _layer(("MatMul",), 1, weights, first.input[1], others[0], rank) if len(others) == 1 else None
    return None


def _layer(
    form: tuple[object, ...], axis: int, weights: Mapping[str, TensorProto], weight: str, bias: str, rank: int
) -> _Linear | None:
    """Return the layer of these weights, None where they are none: other types, other shapes, or computed."""
    found = [weights.get(name) for name in (weight, bias) if name]
    arrays = [numpy_helper.to_array(one) for one in found if one is not None and one.data_type == TensorProto.FLOAT]
    if len(arrays) != len(found) or arrays[0].ndim != 2 or not all(array.size for array in arrays):
        return None
    matrix, offset = arrays[0], arrays[1] if bias else None
    if offset is not None and offset.shape != (matrix.shape[axis],):
        return None
    return _Linear((*form, matrix.shape[1 - axis], offset is None, rank), axis, matrix, offset)


def _check(number: int, model: onnx.ModelProto, first: onnx.ModelProto) -> None:
    """Raise NotMergeable unless `model` can stand beside `first`."""
    if {(one.domain, one.version) for one in model.opset_import} != {(one.domain, one.version) for one in first.opset_import}:
        raise NotMergeable(number, "its opset is another one")
    if [value.name for value in model.graph.input] != [value.name for value in first.graph.input]:
        raise NotMergeable(number, "it takes other tensors")
    if model.functions or model.graph.sparse_initializer:
        raise NotMergeable(number, "its graph has functions or sparse weights")
    if any(attribute.type in (attribute.GRAPH, attribute.GRAPHS) for node in model.graph.node for attribute in node.attribute):
        raise NotMergeable(number, "its graph has control flow")
    if not set(_taken_names(model)).isdisjoint(output.name for output in model.graph.output):
        raise NotMergeable(number, "it gives what it takes, or a weight, as it is")


def _taken_names(model: onnx.ModelProto) -> list[str]:
    return [value.name for value in (*model.graph.input, *model.graph.initializer)]


def _renamed(node: onnx.NodeProto, prefix: str, model: onnx.ModelProto) -> onnx.NodeProto:
    inputs = {value.name for value in model.graph.input}
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = prefix + node.name if node.name else ""
    copy.ClearField("input")
    copy.ClearField("output")
    copy.input.extend(name if name in inputs or not name else prefix + name for name in node.input)
    copy.output.extend(prefix + name if name else name for name in node.output)
    return copy


def _named(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy
