"""Files of one network that were exported at different opsets share as if they were of one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from contract.dtypes import Array
from contract.repository import read_repository
from exporter.add import AddOptions, add_tasks
from exporter.errors import UnsupportedModel
from exporter.export import ExportOptions, export_repository
from exporter.graph.digests import block_digest
from exporter.graph.extract import common_opsets
from exporter.graph.passes import opsets
from exporter.graph.passes.opsets import RaisedOpset, is_early
from exporter.open_models import open_sources
from exporter.sharing.choose import CutOptions
from exporter.sources.onnx_file import load_onnx
from exporter.sources.runtime import open_session
from exporter.sources.sandbox import _try_out, analyse
from tests.exporter.versions import KINDS, SIZE, network, opsets_of

OTHERS = (9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21)


def images(rows: int) -> Array:
    return np.random.default_rng(1).standard_normal((rows, 3, SIZE, SIZE)).astype(np.float32)


def written(folder: Path, kind: str, opset: int, head: int = 0) -> Path:
    path = folder / f"at_{opset}_{head}.onnx"
    path.write_bytes(network(kind, opset, head).SerializeToString())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_one_at_all_opsets_and_answers_as_its_file(tmp_path: Path, kind: str) -> None:
    rows, found = images(3), {}
    for opset in (opset for opset in OTHERS if opset in opsets_of(kind)):
        path = written(tmp_path, kind, opset)
        model, chain = analyse("net", load_onnx(path))
        found[opset] = [block.content for block in chain.blocks], [tap.address for tap in chain.outputs]
        given, ours = (open_session(source).run(None, {"image": rows})[0] for source in (path, model))
        np.testing.assert_allclose(ours, given, rtol=1e-4, atol=1e-5, err_msg=f"{kind} at {opset}")
    assert len(found) > 3
    for (one, first), (other, second) in pairwise(found.items()):
        assert first == second, f"{kind}: {one} and {other}"


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced", "forked_preflight")
@pytest.mark.parametrize("kind", ["Gelu", "GroupNormalization", "ReduceMean", "Squeeze"])
def test_tasks_of_several_opsets_share_as_tasks_of_one(tmp_path: Path, kind: str) -> None:
    repo, cuts = tmp_path / "repo", CutOptions("exact")
    tasks = {f"at_{opset}": str(written(tmp_path, kind, opset, head=opset)) for opset in (11, 18, 21)}
    report = export_repository(open_sources(None, tasks), ExportOptions(repo, cuts=cuts))
    assert report.remarks == {}
    assert len({task.steps[0] for task in report.repository.tasks.values()}) == 1
    assert len(report.plan.segments) == 1 + len(tasks)
    later = {"later": str(written(tmp_path, kind, 20, head=20))}
    assert len(add_tasks(repo, open_sources(None, later), AddOptions()).new) == 1
    again = {"earlier": str(written(tmp_path, kind, 13, head=13))}
    cut = add_tasks(repo, open_sources(None, again), AddOptions(recut=True, cuts=cuts))
    assert len({task.steps[0] for task in read_repository(repo).tasks.values()}) == 1
    assert max(cut.parity_errors.values()) < 1e-5


def test_a_conversion_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    """onnx's converter takes the pixels of early opsets for those of later ones."""
    path = written(tmp_path, "Resize smoothly", 10)
    assert _try_out(path) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opsets, "_put_aside", lambda model: True)
        assert "answers otherwise once it is in an opset" in str(_try_out(path))


def test_what_cannot_be_raised_stays_in_its_opset_and_shares_what_means_the_same(tmp_path: Path) -> None:
    proto = network("Resize", 9)
    (node,) = (node for node in proto.graph.node if node.op_type == "Upsample")
    node.input[1] = "image_scales"
    proto.graph.input.append(helper.make_tensor_value_info("image_scales", TensorProto.FLOAT, [4]))
    model = ir.from_proto(proto)
    RaisedOpset()(model)
    assert (model.opset_imports[""], is_early(model)) == (9, True)
    assert [node.op_type for node in model.graph if node.domain == ""].count("Upsample") == 1
    assert stem_digest(model) == stem_digest(ir.from_proto(network("Resize", 18)))


def stem_digest(model: ir.Model) -> str:
    stem = next(node for node in model.graph if node.op_type == "Conv")
    return block_digest([stem], model.graph.inputs[:1], stem.outputs, model.opset_imports)


def exported(tmp_path: Path, *protos: onnx.ModelProto, backbone: bool = False) -> dict[str, str]:
    """The remarks of an export of the networks `protos`, as tasks a, b and c; the first as the backbone, too, if it is asked for."""
    files = {name: tmp_path / f"{name}.onnx" for name, _ in zip("abc", protos, strict=False)}
    for file, proto in zip(files.values(), protos, strict=True):
        onnx.save(proto, file)
    sources = open_sources(files["a"] if backbone else None, files)
    return dict(export_repository(sources, ExportOptions(tmp_path / "repo", cuts=CutOptions("exact"))).remarks)


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced", "forked_preflight")
def test_an_operator_that_costs_sharing_is_named(tmp_path: Path) -> None:
    one, other = network("LayerNormalization", 18), network("LayerNormalization", 21, head=1)
    (node,) = (node for node in other.graph.node if node.op_type == "LayerNormalization")
    node.attribute[0].f = 1e-3
    assert exported(tmp_path, one, other)["b"] == (
        "shares less with a than their equal weights would allow: 1 of its blocks computes something else; the first, "
        "'LayerNormalization1_0', has LayerNormalization 'LayerNormalization1_0' with epsilon 0.001 against 1e-06."
    )


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced", "forked_preflight")
def test_a_first_block_of_other_operators_is_no_other_architecture(tmp_path: Path) -> None:
    one, other = network("Clip", 18), network("Clip", 18, head=1)
    pads = next(node for node in other.graph.node if node.op_type == "Conv").attribute[0]
    pads.name, pads.type = "auto_pad", onnx.AttributeProto.STRING
    pads.ClearField("ints")
    pads.s = b"SAME_UPPER"
    remark = exported(tmp_path, one, other, backbone=True)["b"]
    assert (
        "its first block computes something else than that of the backbone (Conv 'Conv0_0' with auto_pad SAME_UPPER against"
        in remark
    )


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced", "forked_preflight")
def test_weights_that_changed_are_named(tmp_path: Path) -> None:
    one, other = network("Clip", 18), network("Clip", 13, head=1)
    kernel = other.graph.initializer[0]
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) + 1, kernel.name))
    assert (
        "first block were changed (first Conv 'Conv0_0' with other numbers in its weight 'w0')"
        in exported(tmp_path, one, other)["b"]
    )


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced", "forked_preflight")
def test_an_operator_that_costs_sharing_with_a_repository_is_named(tmp_path: Path) -> None:
    assert exported(tmp_path, network("LayerNormalization", 18)) == {}
    other = network("LayerNormalization", 21, head=1)
    next(node for node in other.graph.node if node.op_type == "LayerNormalization").attribute[0].f = 1e-3
    onnx.save(other, tmp_path / "other.onnx")
    report = add_tasks(tmp_path / "repo", open_sources(None, {"other": tmp_path / "other.onnx"}), AddOptions())
    assert "has LayerNormalization 'LayerNormalization1_0' with epsilon 0.001 against 1e-06." in report.remarks["other"]


def test_segments_that_no_opset_can_join_are_refused() -> None:
    pooled = '<ir_version: 9, opset_import: ["" : {}]> s (float[batch, 4] {}) => (float[batch, 4] {}) {{ {} = {}({}) }}'
    pools = "AveragePool <kernel_shape = [1], ceil_mode = 1> "
    parts = [ir.from_onnx_text(pooled.format(opset, a, b, b, pools, a)) for opset, a, b in ((18, "x", "y"), (19, "p", "q"))]
    with pytest.raises(UnsupportedModel, match="segments of the opsets 18 and 19, in which AveragePool means different things"):
        common_opsets("task", parts)
    assert common_opsets("task", parts[:1]) == {"": 18}
    relu = ir.from_onnx_text(pooled.format(13, "x", "y", "y", "Relu", "x"))
    assert common_opsets("task", [relu, parts[1], relu]) == {"": 19}
