"""By which operator two blocks differ first, in words."""

from __future__ import annotations

import pytest

from exporter.graph.difference import first_difference, nodes_of
from exporter.graph.network import Network
from exporter.graph.passes.canonical import canonicalise
from tests.exporter.graph.passes.graphs import parse

WEIGHTS = "float[4, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}"
SHIFT = "float[4] s = {1, 2, 3, 4}, float[4] b = {0, 0, 0, 1}"


def difference(left: str, right: str, opsets: tuple[int, int] = (18, 18), weights: tuple[str, str] = ("", "")) -> str:
    """The bodies go from `image` to `x`; a product follows, and the output."""
    parts = []
    for body, opset, extra in zip((left, right), opsets, weights, strict=True):
        text = f"{body} y = MatMul(x, w) logits = Relu(y)"
        listed = ", ".join(filter(None, (WEIGHTS, SHIFT, extra)))
        model = canonicalise(parse(text, "float[batch, 2, 4] image", "float[batch, 2, 4] logits", listed, opset))
        parts.append(nodes_of(model, Network("net", model).block()))
    return first_difference(*parts)


ERF = """
    two = Constant <value = float {1.4}> () half = Constant <value = float {0.5}> () one = Constant <value = float {1}> ()
    d = Div(image, two) e = Erf(d) a = Add(e, one) m = Mul(a, image) x = Mul(m, half)
"""


@pytest.mark.parametrize(
    ("left", "right", "words"),
    [
        ("x = Relu(image)", "x = Relu(image)", ""),
        ("x = HardSwish(image)", ERF, "HardSwish here, Div, Erf, Add, Mul and Mul there"),
        (ERF, "x = Elu(image)", "Div, Erf, Add, Mul and Mul here, Elu there"),
        ("r = Relu(image) x = Sigmoid(r)", "r = Relu(image) t = Neg(r) x = Sigmoid(t)", "nothing here, Neg there"),
        (
            "x = LayerNormalization <epsilon = 1e-6> (image, s, b)",
            "x = LayerNormalization(image, s, b)",
            "LayerNormalization 'x' with epsilon 1e-06 against 1e-05",
        ),
        (
            "x = LayerNormalization(image, s, b)",
            "x = LayerNormalization(image, s)",
            "LayerNormalization 'x' with 3 inputs against 2",
        ),
        ("x = Add(image, s)", "x = Add(image, b)", "Add 'x' with other numbers in its weight 's'"),
        ("x = Sub(image, b)", "x = Sub(b, image)", "Sub 'x' with its inputs in another order"),
        (
            "t = Constant <value_ints = [0, 1]> () x = Gather <axis = 1> (image, t)",
            "t = Constant <value_ints = [1, 0]> () x = Gather <axis = 1> (image, t)",
            "Gather 'x' with [0, 1] against [1, 0]",
        ),
    ],
)
def test_the_operator_that_differs_first_is_named(left: str, right: str, words: str) -> None:
    assert difference(left, right) == words


def test_an_operator_that_means_something_else_in_another_opset_is_named() -> None:
    pool = "x = AveragePool <kernel_shape = [1], ceil_mode = 1> (image)"
    assert difference(pool, pool, (18, 19)) == "AveragePool 'x' of opset 18 against 19"
    assert difference("x = Gelu(image)", "x = Gelu(image)", (20, 21)) == ""


def test_sizes_of_weights_are_told_apart() -> None:
    weights = ("float[2, 4] t = {1, 2, 3, 4, 5, 6, 7, 8}", "float[1, 4] t = {1, 2, 3, 4}")
    assert difference("x = Add(image, t)", "x = Add(image, t)", weights=weights) == (
        "Add 'x' with [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]] against [[1.0, 2.0, 3.0, 4.0]]"
    )
