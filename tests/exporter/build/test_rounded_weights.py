"""Convolutions whose weights differ by rounding alone take one another's; all others keep theirs."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from exporter.build import rounded_weights
from exporter.build.rounded_weights import THERE, take_known_weights
from exporter.build.weight_store import WeightStore
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


def _one_by_one(models: list[ir.Model]) -> list[list[bytes]]:
    """Return what all take if each is compared with all before it."""
    known: list[ir.Model] = []
    found = []
    for given in models:
        for other in known:
            if digests(given) == digests(other) or take_known_weights({"a": other, "b": _copy(given)}, []):
                break
        else:
            known.append(other := given)
        found.append(digests(other))
    return found


def _copy(given: ir.Model) -> ir.Model:
    return model(*(value.const_value.numpy().copy() for value in given.graph[0].inputs[1:]))  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(3))
def test_of_many_each_takes_the_first_that_is_its_own_but_for_rounding(seed: int) -> None:
    chance = np.random.default_rng(seed)
    weights = [chance.standard_normal((2, 2, 1, 1)).astype(np.float32) for _ in range(3)] + [np.zeros((2, 2, 1, 1), np.float32)]
    models = []
    for _ in range(24):
        weight = weights[chance.integers(4)].copy()
        for _ in range(chance.integers(8)):
            weight = np.where(chance.random(weight.shape) < 0.7, np.nextafter(weight, np.float32(9)), weight)
        models.append(model(weight, BIAS[:2] + np.float32(chance.choice([0, 0, 1e-7, 1e-3]))))
    expected = _one_by_one([_copy(given) for given in models])
    assert len(set(map(tuple, expected))) > 3
    assert any(now != digests(given) for now, given in zip(expected, models, strict=True))
    take_known_weights({f"m{index:02}": given for index, given in enumerate(models)}, [])
    assert [digests(given) for given in models] == expected


def test_heads_that_differ_are_not_compared_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []
    monkeypatch.setattr(rounded_weights, "_are_near", lambda *pair: bool(compared.append(pair)))
    chance = np.random.default_rng(1)
    models = {f"m{index}": model(chance.standard_normal((2, 2, 1, 1)).astype(np.float32)) for index in range(60)}
    assert not take_known_weights(models, [])
    assert len(compared) < 6


def test_weights_in_files_are_let_go_again(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64, 3, 3)).astype(np.float32)
    models = {name: model(weight + number) for number, name in enumerate("ab")}
    for given in models.values():
        WeightStore(tmp_path).take_over(given)
    take_known_weights(models, [])
    gc.collect()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
