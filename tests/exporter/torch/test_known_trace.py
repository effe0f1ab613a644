"""A trace is kept as long as an export goes on; the weights that it was made with are not."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from exporter.errors import ExportError
from exporter.graph.digests import addresses
from exporter.torch.export import bind
from exporter.torch.known_trace import KnownTrace

WIDTH = 37  # of a matrix that nothing else here has


def traced(weights: dict[str, Tensor]) -> ir.Model:
    rows = ir.Value(name="rows", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", WIDTH]))
    inner = [ir.Value(name=name, const_value=ir.tensor(value.numpy(), name=name)) for name, value in weights.items()]
    for value in inner:
        value.shape, value.type = ir.Shape([WIDTH, WIDTH]), ir.TensorType(ir.DataType.FLOAT)
    nodes = [ir.node("MatMul", [rows, inner[0]])]
    nodes += [ir.node("MatMul", [nodes[-1].outputs[0], value]) for value in inner[1:]]
    nodes[-1].outputs[0].name = "answer"
    graph = ir.Graph([rows], nodes[-1].outputs, nodes=nodes, initializers=inner, opset_imports={"": 18}, name="net")
    return ir.Model(graph, ir_version=10)


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in network.state_dict().items()}


def layers() -> dict[str, Tensor]:
    return weights_of(nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)))


def matrices() -> int:
    gc.collect()
    return sum(isinstance(one, np.ndarray | Tensor) and tuple(one.shape) == (WIDTH, WIDTH) for one in gc.get_objects())


def test_it_keeps_none_of_the_weights_that_it_was_made_with() -> None:
    before = matrices()
    kept = KnownTrace.of(traced(layers()), layers())
    assert matrices() == before
    assert kept.own == {"0.weight", "1.weight"}


def test_a_network_that_is_bound_to_it_is_as_if_it_had_been_traced() -> None:
    weights = layers()
    known = KnownTrace.of(traced(layers()), weights)
    bound, expected = bind(known.model, weights), bind(traced(layers()), weights)
    ours, theirs = (addresses(model.graph, model.opset_imports)[model.graph.outputs[0]] for model in (bound, expected))
    assert ours == theirs


def test_what_a_network_does_not_bring_stays_with_the_trace() -> None:
    weights = layers()
    known = KnownTrace.of(traced(weights), ["0.weight"])
    assert known.takes({"0.weight": weights["0.weight"]})
    bound = bind(known.model, {"0.weight": weights["0.weight"]})
    kept = [value.const_value.numpy() for value in bound.graph.initializers.values() if value.const_value is not None]
    assert any(np.array_equal(array, weights["1.weight"].numpy()) for array in kept)


def test_a_network_without_one_of_them_is_none_for_it() -> None:
    weights = layers()
    known = KnownTrace.of(traced(weights), weights)
    assert known.takes(weights)
    less = {"0.weight": weights["0.weight"]}
    assert not known.takes(less)
    with pytest.raises(ExportError, match=r"lacks the weight 1\.weight"):
        known.model.graph.initializers["1.weight"].const_value.numpy()  # type: ignore[union-attr]


def test_weights_that_were_folded_into_others_go_at_once() -> None:
    image = ir.Value(name="image", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 3, 8, 8]))
    arrays = {"conv.weight": np.ones((32, 3, 3, 3), np.float32)}
    arrays |= {f"norm.{name}": np.full(32, 2, np.float32) for name in ("weight", "bias", "running_mean", "running_var")}
    inner = [ir.Value(name=name, const_value=ir.tensor(array, name=name)) for name, array in arrays.items()]
    for value in inner:
        value.shape, value.type = ir.Shape(arrays[str(value.name)].shape), ir.TensorType(ir.DataType.FLOAT)
    conv = ir.node("Conv", [image, inner[0]])
    norm = ir.node("BatchNormalization", [conv.outputs[0], *inner[1:]])
    for node in (conv, norm):
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    conv.outputs[0].name, norm.outputs[0].name = "inner", "answer"
    graph = ir.Graph([image], norm.outputs, nodes=[conv, norm], initializers=inner, opset_imports={"": 18}, name="net")
    known = KnownTrace.of(ir.Model(graph, ir_version=10), arrays)
    copies = {name: array.copy() for name, array in arrays.items()}
    there = [weakref.ref(array) for array in copies.values()]
    gc.collect()
    gc.disable()  # graphs are cycles
    try:
        bound = bind(known.model, {name: torch.from_numpy(array) for name, array in copies.items()})
        del copies
        assert bound.graph.num_nodes() == 1
        assert [reference() is None for reference in there] == [True] * len(there)
    finally:
        gc.enable()
