"""What is known of a graph's tensors is found once for graphs that are alike, and is that of each."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from exporter.graph import shapes
from exporter.graph.shapes import infer
from tests.exporter.graph.passes.graphs import parse

BODY = "rows = Shape <start = 0, end = 1> (image) all = Concat <axis = 0> (rows, tail) flat = Reshape(image, all) logits = MatMul(flat, w)"


def model(tail: tuple[int, ...] = (2, 8), weight: float = 1, width: int = 8) -> ir.Model:
    weights = f"int64[{len(tail)}] tail = {{{', '.join(map(str, tail))}}}"
    found = parse(BODY, image="float[batch, 4, 4] image", logits="float[batch, a, b] logits", weights=weights)
    value = ir.Value(name="w", const_value=ir.tensor(np.full((tail[-1], width), weight, np.float32), name="w"))
    value.shape, value.type = value.const_value.shape, ir.TensorType(ir.DataType.FLOAT)  # type: ignore[union-attr]
    for node in found.graph:
        for position, given in enumerate(node.inputs):
            if given is not None and given.name == "w":
                node.replace_input_with(position, value)
    found.graph.register_initializer(value)
    return found


@pytest.fixture(autouse=True)
def _nothing_known() -> None:
    shapes._infer_known.cache_clear()


def runs() -> int:
    return shapes._infer_known.cache_info().misses


def test_weights_decide_no_shapes_and_those_of_alike_graphs_are_found_once() -> None:
    first, second = (infer(model(weight=weight, width=80), batch=3) for weight in (1, 2))
    assert first.shapes["logits"] == second.shapes["logits"] == (3, 2, 80)
    assert runs() == 1


@pytest.mark.parametrize("tail", [(2, 8), (1, 16), (4, 4), (16,)])
@pytest.mark.parametrize("batch", [1, 3])
def test_what_decides_them_is_looked_at_each_time(tail: tuple[int, ...], batch: int) -> None:
    for other in ((2, 8), (1, 16), (4, 4)):
        infer(model(other), batch=2)
    before = runs()
    assert infer(model(tail), batch).shapes["flat"] == (batch, *tail)
    assert runs() == before + 1


def test_what_one_does_with_what_it_was_told_is_not_told_to_the_next() -> None:
    told = infer(model(), batch=3)
    told.shapes.clear()
    told.contents.clear()
    assert infer(model(), batch=3).shapes["flat"] == (3, 2, 8)
    assert list(infer(model(), batch=3).contents["all"]) == [3, 2, 8]
