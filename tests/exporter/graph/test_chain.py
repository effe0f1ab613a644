from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import UnsupportedModel
from exporter.graph.chain import Chain, count_users
from exporter.graph.digests import block_digest, source_address
from exporter.graph.network import Network, make_chain
from exporter.graph.passes.canonical import canonicalise
from tests.exporter.graphs import Net

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

BLOCKS = 6  # stem, four residual blocks (the last with the pooling), head


def chain(net: Net) -> Chain:
    return make_chain("net", canonicalise(net.model()))


def digests(net: Net) -> list[str]:
    return [block.digest for block in chain(net).blocks]


def test_blocks_and_macs_counted_by_hand() -> None:
    blocks = chain(Net()).blocks
    stem, residual, head = 36 * 4 * 27, 36 * 4 * (36 + 4), 4 * 3
    assert [block.macs for block in blocks] == [stem, residual, residual, residual, residual, head]
    assert [block.parameters for block in blocks] == [3 + 108, 160, 160, 160, 160, 12 + 3]
    assert blocks[0].end.shape == (4, 6, 6)
    assert blocks[0].end.row_bytes == 4 * 36 * 4
    assert "Relu" in blocks[1].uncounted


@settings(max_examples=25, deadline=None)
@given(st.text("abc/.", min_size=1, max_size=5), st.booleans())
def test_digests_do_not_depend_on_names_or_order(prefix: str, reverse: bool) -> None:
    assert digests(Net(prefix=prefix, reverse_ties=reverse)) == digests(Net())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3), st.integers(10, 20))
def test_a_changed_block_changes_its_digest_only(index: int, seed: int) -> None:
    seeds = [1, 2, 3, 4]
    seeds[index] = seed
    differing = [i for i, (a, b) in enumerate(zip(digests(Net()), digests(Net(blocks=seeds)), strict=True)) if a != b]
    assert differing == [index + 1]


def test_an_address_covers_everything_before_it() -> None:
    ours, theirs = chain(Net()), chain(Net(blocks=(1, 9, 3, 4)))
    same = [a.end.address == b.end.address for a, b in zip(ours.blocks, theirs.blocks, strict=True)]
    assert same == [True, True, False, False, False, False]
    assert [b.structure for b in ours.blocks] == [b.structure for b in theirs.blocks]


def test_a_block_is_hashed_once_whatever_the_network_is_fed_and_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def counting(*given: object, **options: object) -> str:
        asked.append(given)
        return block_digest(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("exporter.graph.network.network.block_digest", counting)
    monkeypatch.setattr("exporter.graph.network.blocks.block_digest", counting)
    network = Network("net", canonicalise(Net().model()))
    alone = network.chain()
    once = len(asked)
    users = count_users([network.values, Network("other", canonicalise(Net(head=9).model())).values])
    fed = network.fed([source_address("UINT8", (1, 2), "elsewhere")])
    together, elsewhere = network.chain(users), fed.chain()
    assert once == 2 * BLOCKS  # and its structure
    assert len(asked) == once
    assert [block.digest for block in together.blocks] == [block.digest for block in alone.blocks]
    assert [block.end.address for block in together.blocks] == [block.end.address for block in alone.blocks]
    assert {block.end.address for block in elsewhere.blocks}.isdisjoint(block.end.address for block in alone.blocks)
    assert (
        fed.digest()
        == network.digest()
        == block_digest(network.model.graph, network.model.graph.inputs, network.model.graph.outputs, network.model.opset_imports)
    )


def test_preprocessing_belongs_to_the_first_block() -> None:
    differing = [a != b for a, b in zip(digests(Net()), digests(Net(scale=1 / 127)), strict=True)]
    assert differing == [True, False, False, False, False, False]


def test_merged_initializers_do_not_matter() -> None:
    # Two equal weights in one block, once as two initializers and once as one.
    separate = Net(blocks=(1, 1))
    merged = separate.model()
    for name in ("left", "right"):
        keep, drop = merged.graph.initializers[f"0.{name}"], merged.graph.initializers[f"1.{name}"]
        drop.replace_all_uses_with(keep)
    assert [b.digest for b in make_chain("merged", canonicalise(merged)).blocks] == digests(separate)


def _with_batch_arithmetic() -> ir.Model:
    """A network whose Reshape takes the batch size from the image, as exporters write it."""
    x = ir.Value(name="image", shape=ir.Shape(["batch", 6]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 18})
    weight = ir.Value(name="w", const_value=ir.tensor(np.ones((6, 6), np.float32), name="w"))
    rest = ir.Value(name="rest", const_value=ir.tensor(np.array([2, 3], np.int64), name="rest"))
    for value in (weight, rest):
        graph.register_initializer(value)
    batch = ir.node("Shape", [x], attributes={"start": 0, "end": 1})
    product = ir.node("MatMul", [x, weight])
    target = ir.node("Concat", [batch.outputs[0], rest], attributes={"axis": 0})
    shaped = ir.node("Reshape", [product.outputs[0], target.outputs[0]])
    shaped.outputs[0].shape, shaped.outputs[0].type = ir.Shape(["batch", 2, 3]), ir.TensorType(ir.DataType.FLOAT)
    flat = ir.node("Flatten", [shaped.outputs[0]])
    flat.outputs[0].shape, flat.outputs[0].type = ir.Shape(["batch", 6]), ir.TensorType(ir.DataType.FLOAT)
    head = ir.node("MatMul", [flat.outputs[0], weight])
    head.outputs[0].shape, head.outputs[0].type = ir.Shape(["batch", 6]), ir.TensorType(ir.DataType.FLOAT)
    graph.extend([batch, product, target, shaped, flat, head])
    graph.outputs.append(head.outputs[0])
    model = ir.Model(graph, ir_version=9)
    ir.passes.common.NameFixPass()(model)
    return model


def test_batch_size_arithmetic_does_not_hide_cut_points() -> None:
    assert len(make_chain("net", canonicalise(_with_batch_arithmetic())).blocks) == 2


def test_a_fixed_batch_size_is_refused() -> None:
    model = Net().model()
    model.graph.inputs[0].shape = ir.Shape([1, 6, 6, 3])
    with pytest.raises(UnsupportedModel, match="batch size is fixed to 1"):
        make_chain("net", canonicalise(model))


@pytest.mark.parametrize(
    ("left", "right", "module"),
    [
        ("stages.0.blocks.1.conv", "stages.0.blocks.1.skip", "stages.0.blocks.1"),
        ("stages.0.blocks.1.conv", "stages.0.blocks.2.conv", "stages.0.blocks"),
    ],
)
def test_a_block_is_named_by_the_deepest_module_that_covers_it(left: str, right: str, module: str) -> None:
    model = Net(blocks=(1,)).model()
    for name, path in (("node_0.a", left), ("node_0.b", right)):
        scopes = ["", "network", f"network.{path}", "operator"]
        model.graph.node(name).metadata_props["pkg.torch.onnx.name_scopes"] = repr(scopes)
    assert make_chain("net", canonicalise(model)).blocks[1].modules == (module,)
