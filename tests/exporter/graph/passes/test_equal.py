"""What is computed twice is computed once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exporter.graph.network import make_chain
from exporter.graph.passes.canonical import canonicalise
from tests.exporter.graph.passes.graphs import keeps_results
from tests.exporter.wired import FROZEN, Wired, siamese

TUNED = {"b3": 33, "b4": 44}


def _two_trunks(tuned: dict[str, int], head: int) -> ir.Model:
    """The Siamese network as a tracer writes it: the frozen blocks before the fork twice, their equal weights under two names."""
    net = Wired()
    frozen = net.layers("image", FROZEN)
    both = {name: seed for name, seed in FROZEN.items() if name not in tuned}
    own = net.layers("image", {f"own.{name}": seed for name, seed in {**both, **tuned}.items()})
    net.layer(net.concat([frozen, own], "both"), "logits", head, 3)
    return net.model("logits")


def test_two_equal_trunks_become_one() -> None:
    model = keeps_results(_two_trunks(TUNED, 21), canonicalise)
    assert sum(node.op_type == "MatMul" for node in model.graph) == 4 + 2 + 1
    found = make_chain("twin", model)
    expected = make_chain("twin", canonicalise(siamese(TUNED, 21)))
    assert [block.digest for block in found.blocks] == [block.digest for block in expected.blocks]
    assert [tap.address for tap in found.outputs] == [tap.address for tap in expected.outputs]


def test_weights_that_differ_in_one_value_are_kept_apart() -> None:
    model = _two_trunks(TUNED, 21)
    weight = model.graph.initializers["own.b2.weight"]
    values = np.asarray(weight.const_value).copy()
    values[0, 0] = np.nextafter(values[0, 0], np.float32(9))
    weight.const_value = ir.tensor(values)
    assert sum(node.op_type == "MatMul" for node in canonicalise(model).graph) == 4 + 3 + 1


def test_an_output_stays_a_node_of_its_own() -> None:
    net = Wired()
    net.layer("image", "features", 1)
    net.layer("image", "again", 1)
    net.layer("again", "logits", 2, 3)
    model = keeps_results(net.model("features", "logits"), canonicalise)
    assert [value.name for value in model.graph.outputs] == ["features", "logits"]
