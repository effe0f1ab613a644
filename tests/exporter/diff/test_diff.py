from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from contract.preprocessing import Preprocessing
from espalier.tables.diff import as_data, summary
from exporter.diff.diff import NetworkDiff, NothingInCommon, diff_models
from exporter.sources.task_model import TaskModel
from tests.exporter.biased import biased
from tests.exporter.graphs import Net
from tests.exporter.wired import siamese

# as a whole: the fast part of the suite is to stay under a minute
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_traces")]

BLOCKS = st.lists(st.integers(1, 9), min_size=1, max_size=5)
STEM, BLOCK, HEAD = 36 * 4 * 27, 36 * 4 * (36 + 4), 4 * 3  # MACs


def diff(left: Net | ir.Model, right: Net | ir.Model) -> NetworkDiff:
    left, right = (net.model() if isinstance(net, Net) else net for net in (left, right))
    return diff_models("left", TaskModel(left), "right", TaskModel(right))


def kinds(left: Net, right: Net) -> list[str]:
    return [block.kind for block in diff(left, right).blocks]


def weights(net: Net) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in net.proto().graph.initializer}


@settings(max_examples=12)
@given(BLOCKS, st.text("abc/.", max_size=4), st.booleans())
def test_a_network_renamed_and_reordered_has_no_difference(blocks: list[int], prefix: str, reverse: bool) -> None:
    found = diff(Net(blocks), Net(blocks, prefix=prefix, reverse_ties=reverse))
    assert found.differing == ()
    assert found.shared_part == 1
    assert found.remarks == ()


@settings(max_examples=12)
@given(st.lists(st.sampled_from([1, 2]), min_size=4, max_size=4), st.lists(st.sampled_from([1, 2]), min_size=4, max_size=4))
def test_exactly_the_changed_blocks_are_listed(left: list[int], right: list[int]) -> None:
    # Blocks that repeat may find each other at other places; what stays is that equal networks, and only they, have no difference.
    found = diff(Net(left), Net(right, prefix="x."))
    assert (found.differing == ()) == (left == right)
    shared = next((i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b), 4)
    assert found.shared_macs == STEM + shared * BLOCK + (HEAD if left == right else 0)


@settings(max_examples=12)
@given(st.integers(0, 3), st.integers(10, 99), st.booleans())
def test_norms_are_those_of_numpy(index: int, seed: int, reverse: bool) -> None:
    seeds = [1, 2, 3, 4]
    seeds[index] = seed
    other = Net(seeds, prefix="other.", reverse_ties=reverse)
    (change,) = diff(Net(), other).differing
    assert (change.kind, change.names, change.parameters) == ("changed", (str(index),), 160)
    before, after = weights(Net()), weights(replace(other, prefix=""))
    for weight in change.weights:
        a, b = before[weight.name], after[weight.name]
        assert weight.relative_norm == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-12)
        assert weight.largest_change == np.abs(b - a).max()
        assert (weight.changed, weight.numbers) == (a.size, a.size)
    names = [f"{index}.left", f"{index}.right"]
    assert sorted(weight.name for weight in change.weights) == names
    a, b = (np.concatenate([side[name].ravel() for name in names]) for side in (before, after))
    assert change.relative_norm == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-12)
    assert change.largest_change == np.abs(b - a).max()


def test_one_changed_number_is_found() -> None:
    other = Net().proto()
    (bias,) = (tensor for tensor in other.graph.initializer if tensor.name == "head.bias")
    values = numpy_helper.to_array(bias).copy()
    values[1] += 2
    bias.CopyFrom(numpy_helper.from_array(values, "head.bias"))
    (change,) = diff(Net(), ir.from_proto(other)).differing
    assert change.names == ("head",)
    assert change.changed_weights == 1
    assert {weight.name: weight.changed for weight in change.weights} == {"head.weight": 0, "head.bias": 1}
    assert change.largest_change == pytest.approx(2, abs=1e-6)


@settings(max_examples=8)
@given(st.permutations([1, 2, 3, 4]), st.integers(0, 3))
def test_an_inserted_block_is_the_only_difference(blocks: list[int], place: int) -> None:
    longer = [*blocks[:place], 9, *blocks[place:]]
    (added,) = diff(Net(blocks), Net(longer)).differing
    (removed,) = diff(Net(longer), Net(blocks)).differing
    assert added.other is not None
    assert removed.block is not None
    assert (added.kind, added.block, added.other.index) == ("added", None, place + 1)
    assert (removed.kind, removed.block.index, removed.other) == ("removed", place + 1, None)


def test_a_block_that_takes_the_pooling_over_is_told_from_the_one_before_it() -> None:
    assert kinds(Net((1, 2)), Net((1, 2, 9))) == ["equal", "equal", "equal", "replaced", "equal"]


def test_a_head_of_another_size_is_said_to_be_that() -> None:
    found = diff(Net(), Net(classes=5))
    (change,) = found.differing
    assert (change.kind, change.names, change.relative_norm) == ("altered", ("head",), None)
    assert [(w.name, w.shape, w.other_shape, w.changed) for w in change.weights] == [
        ("head.weight", (4, 3), (4, 5), None),
        ("head.bias", (3,), (5,), None),
    ]
    assert found.remarks == ("The outputs differ: FLOAT rows of shape [3] against FLOAT rows of shape [5].",)


def test_other_attributes_are_no_change_of_weights() -> None:
    other = Net().proto()
    (head,) = (node for node in other.graph.node if node.op_type == "Gemm")
    head.attribute.add(name="alpha", f=2.0, type=1)
    found = diff(Net(), ir.from_proto(other))
    (change,) = found.differing
    assert (change.kind, change.relative_norm, change.changed_weights) == ("altered", 0.0, 0)
    assert change.difference == "Gemm 'node_logits' with alpha 1 against 2"
    assert summary(found).endswith(" By operators, head differs first: Gemm 'node_logits' with alpha 1 against 2.")


def test_another_operator_replaces_a_block() -> None:
    other = Net().model()
    other.graph.node("node_1.out").op_type = "Sigmoid"
    found = diff(Net(), other)
    assert [block.kind for block in found.blocks] == ["equal", "equal", "replaced", "equal", "equal", "equal"]
    assert [block.difference for block in found.differing] == ["Relu here, Sigmoid there"]


def test_two_equal_weights_may_be_kept_as_one() -> None:
    merged = Net(blocks=(7, 7)).model()
    keep, drop = merged.graph.initializers["0.left"], merged.graph.initializers["1.left"]
    drop.replace_all_uses_with(keep)
    first, second = diff(Net(blocks=(1, 2)), merged).differing
    assert [weight.name for weight in (*first.weights, *second.weights)] == ["0.left", "0.right", "1.left", "1.right"]


def test_a_weight_that_was_zero_has_no_finite_relative_norm() -> None:
    zero = Net().model()
    value = zero.graph.initializers["head.bias"]
    value.const_value = ir.tensor(np.zeros(3, np.float32), name="head.bias")
    (change,) = diff(zero, Net()).differing
    assert {weight.name: weight.relative_norm for weight in change.weights} == {"head.weight": 0.0, "head.bias": inf}


def test_preprocessing_that_differs_is_said() -> None:
    (change,) = diff(Net(), Net(scale=1 / 127)).differing
    assert [weight.name for weight in change.weights if weight.changed] == ["scale"]
    assert diff(Net(), Net(scale=1 / 127)).remarks == ("The preprocessing differs.",)
    left, right = Preprocessing(6, 6), Preprocessing(6, 6, mean=(0.5, 0.5, 0.5))
    found = diff_models("a", TaskModel(Net().model(), (), left), "b", TaskModel(Net(scale=1 / 127).model(), (), right))
    assert found.remarks == ("The preprocessing differs: mean (0.485, 0.456, 0.406) against (0.5, 0.5, 0.5).",)


def test_taps_on_a_side_way_are_taps_in_both() -> None:
    # The frozen way of a Siamese network is a side way, in which only the other network's taps tell blocks apart.
    found = diff(siamese({"b3": 30, "b4": 40}, 0), siamese({"b3": 31, "b4": 40}, 0))
    assert [(change.kind, change.changed_weights) for change in found.differing] == [("changed", 1)]


def test_networks_with_nothing_alike_are_refused() -> None:
    with pytest.raises(NothingInCommon, match=r"left \(6 blocks\) and right \(\d+ blocks\) have no block"):
        diff(Net(), siamese({"b3": 30}, 0))


@pytest.mark.slow
def test_a_tuned_block_is_named_by_its_module() -> None:
    from benchmarks.models.synthetic import random_task
    from exporter.torch.export import BackboneExporter
    from tests.nets import tiny_resnet

    backbone = tiny_resnet()
    exporter = BackboneExporter(backbone)
    task = exporter.export_task(random_task(backbone, ("layer3.1",), 4, seed=1))
    found = diff_models("backbone", exporter.export_backbone(), "task", task)
    assert [(change.kind, change.names) for change in found.differing] == [("changed", ("layer3.1",)), ("altered", ("fc",))]
    norm = found.differing[0].relative_norm
    assert norm is not None
    assert 0.005 < norm < 0.05  # 1 % of noise on the weights, the scales and the statistics that are folded together


def test_blocks_that_rounding_tells_apart_are_near_and_those_that_were_trained_are_not() -> None:
    rounded, trained = (
        diff_models("one", TaskModel(biased(1, 1)), "two", TaskModel(biased(1, 2, noise=noise))) for noise in (4e-4, 0.05)
    )
    assert [block.names[0] for block in rounded.near] == ["layer0", "layer1"]
    assert all(2e-4 < (block.relative_change or 0.0) <= 4e-4 for block in rounded.near)
    assert not trained.near
    assert "layer0 and layer1 are nearly equal: no weight differs by more than 3.7e-04" in summary(rounded)
    assert "nearly" not in summary(trained)
    assert as_data(rounded)["blocks"][0]["relative_change"] == rounded.blocks[0].relative_change
