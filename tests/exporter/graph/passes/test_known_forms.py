"""A graph that is known but for weights that no rewriting looks at becomes what it becomes by itself."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from exporter.graph.passes import canonical
from exporter.graph.passes.canonical import canonicalise
from exporter.graph.passes.known_forms import KnownForms

SIZE = 256  # channels, and features: a bias of so many numbers is a weight, too


class Written:
    """A network of layers that are drawn, whose weights are drawn apart."""

    def __init__(self, drawn: int) -> None:
        self.chance = random.Random(drawn)
        self.nodes: list[onnx.NodeProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.last = "image"
        self.rank = self.chance.choice((2, 4))
        layers = (
            (self.product, self.gemm, self.folded, self.twice, self.scaled) if self.rank == 2 else (self.convolution, self.relu)
        )
        for _ in range(self.chance.randrange(2, 5)):
            self.chance.choice(layers)()
        self.opset = self.chance.choice((17, 18, 20))

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.shapes)}"
        self.shapes[name] = shape
        return name

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        self.last = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [self.last], **attributes))
        return self.last

    def relu(self) -> None:
        self.node("Relu", self.last)

    def product(self) -> None:
        self.node("Add", self.node("MatMul", self.last, self.weight(SIZE, SIZE)), self.weight(SIZE))

    def gemm(self) -> None:
        self.node("Gemm", self.last, self.weight(SIZE, SIZE), self.weight(SIZE), transB=self.chance.randrange(2))

    def folded(self) -> None:
        """A weight that is computed from constants, which folding looks at."""
        before = self.last
        self.node("MatMul", before, self.node("Transpose", self.weight(SIZE, SIZE), perm=[1, 0]))

    def twice(self) -> None:
        """What is computed twice if two weights are equal."""
        before = self.last
        one = self.node("MatMul", before, self.weight(SIZE, SIZE))
        self.node("Add", one, self.node("MatMul", before, self.weight(SIZE, SIZE)))

    def scaled(self) -> None:
        self.node("Mul", self.last, self.weight(1))

    def convolution(self) -> None:
        self.node("Conv", self.last, self.weight(SIZE, SIZE, 1, 1), self.weight(SIZE))
        self.node("BatchNormalization", self.last, *(self.weight(SIZE) for _ in range(4)))

    def model(self, seed: int, other: dict[str, int] | None = None) -> ir.Model:
        """other: seeds of weights that have their own."""
        shape = ["batch", SIZE] if self.rank == 2 else ["batch", SIZE, 4, 4]
        ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("image", self.last)]
        weights = [self.values(name, (other or {}).get(name, seed)) for name in self.shapes]
        graph = helper.make_graph(self.nodes, "g", ends[:1], ends[1:], weights)
        model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9))
        model.meta["said"] = ("a sentence",)
        return model

    def values(self, name: str, seed: int) -> onnx.TensorProto:
        """Equal seeds give equal weights of equal shapes, so that some layers are computed twice."""
        drawn = np.random.default_rng(seed).random(self.shapes[name], np.float32)
        return numpy_helper.from_array(drawn + np.float32(0.5), name)


def read(model: ir.Model) -> tuple[bytes, object]:
    return ir.to_proto(model).SerializeToString(deterministic=True), dict(model.meta)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[ir.Model]:
    """Return the models that are rewritten."""
    found: list[ir.Model] = []
    rewrite: Callable[..., ir.Model] = canonical._rewrite
    monkeypatch.setattr(canonical, "_rewrite", lambda model, whole: (found.append(model), rewrite(model, whole))[1])
    return found


@pytest.mark.parametrize("drawn", range(14))
def test_it_becomes_what_it_becomes_by_itself_whatever_its_weights_are(drawn: int) -> None:
    net, known = Written(drawn), KnownForms()
    names = list(net.shapes)
    for other in ({}, {names[-1]: 7}, {names[0]: 7}, {name: at for at, name in enumerate(names)}, {}):
        expected, given = (net.model(1, other) for _ in range(2))
        assert read(canonicalise(given, known=known)) == read(canonicalise(expected))


def test_one_of_several_that_differ_in_weights_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten = counted(monkeypatch)
    net, known = Written(0), KnownForms()
    net.nodes, net.shapes, net.last, net.rank = [], {}, "image", 2
    net.product()
    net.gemm()
    for seed in range(3):
        canonicalise(net.model(seed), known=known)
    assert len(rewritten) == 1


def test_one_that_is_not_rewritten_is_not_checked_for_it_either() -> None:
    checked: list[ir.Model] = []
    net, known = Written(0), KnownForms()
    net.nodes, net.shapes, net.last, net.rank = [], {}, "image", 2
    net.product()
    models = [net.model(seed) for seed in range(3)]
    for model in models:
        canonicalise(model, known=known, check=checked.append)
    net.gemm()
    models.append(net.model(0))
    canonicalise(models[-1], known=known, check=checked.append)
    canonicalise(net.model(0), check=checked.append)
    assert checked[:2] == [models[0], models[-1]]
    assert len(checked) == 3


def test_one_whose_weights_are_looked_at_is_rewritten_unless_they_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten = counted(monkeypatch)
    net, known = Written(0), KnownForms()
    net.nodes, net.shapes, net.last, net.rank = [], {}, "image", 2
    net.folded()
    net.product()
    for other in ({}, {"w1": 5}, {"w0": 5}, {"w0": 5, "w1": 6}):
        canonicalise(net.model(1, other), known=known)
    assert len(rewritten) == 2


@pytest.mark.parametrize("change", ["shape", "dtype", "small", "meta", "attribute"])
def test_one_that_differs_in_anything_else_is_rewritten(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten = counted(monkeypatch)
    known, models = KnownForms(), []
    for changed in (False, True):
        net = Written(0)
        net.nodes, net.shapes, net.last, net.rank = [], {}, "image", 2
        net.product()
        net.scaled()
        if changed and change == "attribute":
            net.nodes[0].name = "another"
        if changed and change == "shape":
            net.shapes["w0"] = (SIZE, SIZE * 2)
        model = net.model(1, {"w2": 5} if changed and change == "small" else {})
        weight = model.graph.initializers["w0"]
        if changed and change == "dtype":
            assert weight.const_value is not None
            weight.const_value = ir.tensor(weight.const_value.numpy().astype(np.float64), name="w0")
        if changed and change == "meta":
            model.meta["said"] = ("another",)
        models.append(model)
    for model in models:
        known.rewritten(model, lambda model: canonical._rewrite(model, whole=True))
    assert len(rewritten) == 2


def test_what_one_does_with_its_form_does_not_change_the_next() -> None:
    net, known = Written(2), KnownForms()
    for seed in range(3):
        found = canonicalise(net.model(seed), known=known)
        assert read(found) == read(canonicalise(net.model(seed)))
        for node in found.graph:
            node.name, node.metadata_props["scope"] = "spoilt", "spoilt"
        for value in found.graph.initializers.values():
            value.meta["espalier_digest"] = b"spoilt"
