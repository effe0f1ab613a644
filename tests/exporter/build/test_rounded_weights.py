"""Convolutions whose weights differ by rounding alone take one another's; all others keep theirs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from exporter.build.rounded_weights import THERE, take_known_weights
from exporter.graph.digests import weight_digest

WEIGHT = np.random.default_rng(1).standard_normal((4, 2, 3, 3)).astype(np.float32)
BIAS = np.array([1, -2, 0.5, 1e-3], np.float32)
ONE_UP = np.nextafter(WEIGHT, np.float32(np.inf))


def model(weight: np.ndarray, bias: np.ndarray | None = BIAS, operator: str = "Conv") -> ir.Model:
    image = ir.Value(name="image", shape=ir.Shape(["batch", 2, 8, 8]), type=ir.TensorType(ir.DataType.FLOAT))
    weights = [
        ir.Value(name=name, const_value=ir.tensor(array)) for name, array in (("w", weight), ("b", bias)) if array is not None
    ]
    node = ir.node(operator, [image, *weights])
    node.outputs[0].name = "logits"
    graph = ir.Graph([image], node.outputs, nodes=[node], initializers=weights, opset_imports={"": 18}, name="net")
    return ir.Model(graph, ir_version=9)


def digests(given: ir.Model) -> list[bytes]:
    return [weight_digest(value) for value in given.graph[0].inputs[1:] if value is not None]


def test_a_difference_of_a_bit_is_rounding() -> None:
    first, second = model(WEIGHT), model(ONE_UP, BIAS + np.float32(1e-7))
    taken = take_known_weights({"a": first, "b": second}, [])
    assert digests(first) == digests(second)
    assert taken.keys() == {"b"}
    assert taken["b"].remark.startswith("takes the weights of a for one convolution, which are its own but for rounding")


def test_zeros_of_either_sign_without_a_bias_are_equal() -> None:
    first, second = model(np.zeros_like(WEIGHT), None), model(-np.zeros_like(WEIGHT), None)
    assert take_known_weights({"a": first, "b": second}, []).keys() == {"b"}
    assert digests(first) == digests(second)


@pytest.mark.parametrize("weight", [WEIGHT, ONE_UP])
def test_what_is_there_stays(weight: np.ndarray) -> None:
    other = ONE_UP if weight is WEIGHT else WEIGHT
    there, new = model(weight), model(other)
    before = digests(there)
    assert take_known_weights({"new": new}, [there])["new"].owners == (THERE,)
    assert digests(there) == digests(new) == before


@pytest.mark.parametrize(
    "other",
    [
        model(WEIGHT * np.float32(1 + 1e-6)),
        model(WEIGHT, BIAS + np.float32(1e-4)),
        model(np.where(np.arange(72).reshape(WEIGHT.shape) == 71, WEIGHT + np.float32(1e-5), WEIGHT)),
        model(ONE_UP, operator="ConvTranspose"),
        model(WEIGHT.astype(np.float16), BIAS.astype(np.float16)),
    ],
)
def test_what_was_tuned_however_little_is_kept(other: ir.Model) -> None:
    before = digests(other)
    assert not take_known_weights({"a": model(WEIGHT), "b": other}, [])
    assert digests(other) == before


def test_a_bias_that_others_read_too_is_kept_for_them() -> None:
    shared = model(ONE_UP)
    first = shared.graph[0]
    own = [first.inputs[0], ir.Value(name="v", const_value=ir.tensor(WEIGHT * 2)), first.inputs[2]]
    assert own[1] is not None
    shared.graph.register_initializer(own[1])
    second = ir.node("Conv", own)
    second.outputs[0].name = "second"
    shared.graph.append(second)
    first.replace_input_with(2, own[2])
    take_known_weights({"new": shared}, [model(WEIGHT, BIAS + np.float32(1e-7))])
    assert second.inputs[2] is own[2]
    assert first.inputs[2] is not own[2]
