"""Which tensors of a backbone are the last of their resolution."""

from __future__ import annotations

from exporter.graph.levels import find_levels
from exporter.graph.network import Network
from exporter.graph.passes.canonical import canonicalise
from tests.exporter.dense import CHANNELS, SIZE, Dense
from tests.exporter.wired import Wired


def test_the_last_tensor_of_each_resolution_and_no_vector() -> None:
    network = Network("backbone", canonicalise(Dense("classes").model()))
    taps = {tap.address: tap for block in network.chain(kept=network.levels).blocks for tap in (*block.inputs, *block.outputs)}
    sides = [(channels, SIZE >> index + 1, SIZE >> index + 1) for index, channels in enumerate(CHANNELS)]
    assert sorted(taps[address].shape for address in network.levels) == sorted(sides)
    assert all(taps[address].name.endswith("sum.relu") for address in network.levels)


def test_a_network_of_vectors_has_none() -> None:
    net = Wired()
    net.layer(net.layer("image", "a", 1), "b", 2)
    assert Network("vectors", canonicalise(net.model("b"))).levels == frozenset()


def test_no_parts_no_levels() -> None:
    assert find_levels([], ()) == frozenset()
