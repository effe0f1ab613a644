from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exporter.graph.passes.head import adapt_head
from exporter.sources.runtime import open_session
from tests.exporter.graph.passes.graphs import parse

BODY = """batch = Shape <start = 0, end = 1> (image) x = Relu(image) y = Reshape(x, square) z = Reshape(y, back)
three = Constant <value_ints = [3]> () target = Concat <axis = 0> (batch, three) scores = Conv(z, head) logits = Reshape(scores, target)"""
WEIGHTS = "float[3, 3, 1] head = {1, 0, 0, 0, 1, 0, 0, 0, 1}, int64[2] square = {-1, 3}, int64[3] back = {-1, 3, 1}"


def test_a_head_of_another_size_changes_the_shapes_behind_it_only() -> None:
    model = parse(BODY, image="float[batch, 3, 1] image", weights=WEIGHTS, logits="float[batch, N] logits")
    head = model.graph.initializers["head"]
    head.const_value = ir.tensor(np.ones((5, 3, 1), np.float32))
    head.shape = ir.Shape([5, 3, 1])
    adapt_head(model.graph, {head: (3, 5)})
    rows = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    (logits,) = open_session(model).run(None, {"image": rows})
    np.testing.assert_array_equal(logits, [[3] * 5, [12] * 5])


def test_without_another_head_nothing_changes() -> None:
    model = parse(BODY, image="float[batch, 3, 1] image", weights=WEIGHTS, logits="float[batch, N] logits")
    text = ir.to_onnx_text(model)
    adapt_head(model.graph, {})
    assert ir.to_onnx_text(model) == text
