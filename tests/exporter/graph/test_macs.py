from __future__ import annotations

import pytest

from exporter.graph.macs import count_macs
from exporter.graph.shapes import infer_shapes
from tests.exporter.graph.passes.graphs import parse


@pytest.mark.parametrize(
    ("equation", "weights", "macs"),
    [
        ("bij,jk->bik", "float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}", 3 * 4 * 2),
        ("bij, bkj -> bik", "float[1, 2, 4] w = {1, 2, 3, 4, 5, 6, 7, 8}", 3 * 2 * 4),
        ("...ij,jk->...ik", "float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}", 3 * 4 * 2),
        ("bij,j->bij", "float[4] w = {1, 2, 3, 4}", 0),
    ],
)
def test_einsum_counts_a_mac_per_combination_of_indices(equation: str, weights: str, macs: int) -> None:
    model = parse(f'logits = Einsum <equation = "{equation}"> (image, w)', logits="float[batch, N, M] logits", weights=weights)
    assert count_macs(model.graph, infer_shapes(model, 1)).total == macs
    assert count_macs(model.graph, infer_shapes(model, 1)).uncounted == ()


def test_shapes_follow_what_is_computed_from_shapes() -> None:
    body = """shape = Shape(image) zero = Constant <value_int = 0> () one = Constant <value_int = 1> () batch = Gather(shape, zero)
    many = Range(zero, batch, one) column = Unsqueeze(many, last) logits = Cast <to = 1> (column)"""
    model = parse(body, logits="float[batch, N] logits", weights="int64[1] last = {1}")
    assert infer_shapes(model, 5)["logits"] == (5, 1)
    assert infer_shapes(model, 100)["logits"] == (100, 1)
