from __future__ import annotations

import numpy as np

from exporter.graph.passes.constants import FoldConstants
from exporter.graph.passes.optimise import optimise
from tests.exporter.graph.passes.graphs import keeps_results, operators, parse

TWO = "float[1] a = {2}, float[1] b = {3}"


def test_arithmetic_on_constants_goes() -> None:
    model = keeps_results(
        parse("c = Add(a, b) logits = Mul(image, c)", weights=TWO, logits="float[batch, N, M] logits"), FoldConstants()
    )
    assert operators(model)[-1] == "Mul"
    assert "Add" not in operators(model)


def test_batch_normalisation_goes_into_the_convolution() -> None:
    numbers = ", ".join(f"float[2] {name} = {{{x}, {x}}}" for name, x in [("scale", 2), ("bias", 1), ("mean", 0.5), ("var", 4)])
    kernel = np.arange(12) / 12
    weights = f"float[2, 6, 1] kernel = {{{', '.join(map(str, kernel))}}}, {numbers}"
    body = "x = Conv(image, kernel) y = BatchNormalization(x, scale, bias, mean, var) logits = Relu(y)"
    model = parse(body, image="float[batch, 6, 4] image", logits="float[batch, N, M] logits", weights=weights)
    optimise(model)
    assert operators(model) == ["Conv", "Relu"]


def test_what_does_nothing_goes() -> None:
    body = "x = Relu(image) y = Identity(x) z = Transpose <perm = [0, 1, 2]> (y) unused = Exp(z) logits = Neg(z)"
    model = keeps_results(parse(body, logits="float[batch, N, M] logits"), optimise)
    assert operators(model) == ["Relu", "Neg"]


def test_a_tensor_that_is_limited_twice_keeps_both_limits() -> None:
    weights = "float low = {-1}, float high = {1}, float lower = {-2}, float higher = {2}"
    body = "a = Max(image, low) b = Min(a, high) c = Max(image, lower) d = Min(c, higher) logits = Sub(b, d)"
    model = keeps_results(parse(body, logits="float[batch, N, M] logits", weights=weights), optimise)
    limits = [value for node in model.graph for value in node.inputs if value is not None and value.producer() is None]
    assert all(value.const_value is not None for value in limits if value.name != "image")


def test_a_pad_that_a_convolution_and_a_pooling_share_stays() -> None:
    weights = "int64[6] pads = {0, 0, 0, 0, 0, 1}, float[2, 3, 2] kernel = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}"
    body = "low = Sub(image, ten) x = Pad(low, pads) a = Conv(x, kernel) b = MaxPool <kernel_shape = [2]> (x) "
    body += "logits = Concat <axis = 1> (a, b)"
    keeps_results(parse(body, logits="float[batch, N, M] logits", weights=f"{weights}, float[1] ten = {{10}}"), optimise)
