"""Networks of convolutions alone take images of any height and width, and so do the segments that they share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx import ModelProto, numpy_helper

from contract.repository import read_repository
from contract.repository.free_sizes import FreeSize
from exporter.add import AddOptions, add_tasks
from exporter.build.parity import ParityChecker, check_parity
from exporter.build.reference_outputs import reference_outputs_of
from exporter.export import ExportOptions, export_repository
from exporter.open_models import open_sources
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources
from exporter.sources.whole import WholeNetwork

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced", "forked_preflight", "small_sizes")]

_BACKBONE = """
    a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (image, w0) a1 = Relu(a)
    b = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (a1, w1) b1 = Relu(b)
    c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (b1, w2) c1 = Relu(c)
    """
_HEADS = {
    "classes": "p = GlobalAveragePool(c1) h = Conv(p, head) out = Flatten(h)",
    "pyramid": """s = Shape(b1) hw = Slice(s, two, four) bc = Shape <start = 0, end = 2> (c1) all = Concat <axis = 0> (bc, hw)
        u = Resize <mode = "linear"> (c1, , , all) m = Add(u, b1) out = Conv(m, head)""",
    "dense": """s = Shape(image) hw = Slice(s, two, four) h = Conv(c1, head) bc = Shape <start = 0, end = 2> (h)
        all = Concat <axis = 0> (bc, hw) out = Resize <mode = "nearest"> (h, , , all)""",
    "tokens": """s = Shape(c1) bc = Slice(s, zero, two) minus = Neg(one) all = Concat <axis = 0> (bc, minus) t = Reshape(c1, all)
        r = Transpose <perm = [0, 2, 1]> (t) q = MatMul(r, r2) k = Transpose <perm = [0, 2, 1]> (q) g = MatMul(q, k)
        f = Softmax(g) m = MatMul(f, q) out = ReduceMean <keepdims = 0> (m, one)""",
}
_STEPS = """scales = Constant <value = float[4] {1.0, 1.0, 4.0, 4.0}> ()
    u = Resize <mode = "nearest"> (c1, , scales) m = Add(u, a1) out = Conv(m, head)"""
_OUT = {"classes": "batch, 2", "tokens": "batch, 4", **dict.fromkeys(("pyramid", "dense", "steps"), "batch, 2, oh, ow")}


def network(head: str, seed: int) -> ModelProto:
    """float (batch, 3, height, width) -> three convolutions that halve, equal in all -> a head of its own."""
    body = _HEADS.get(head, _STEPS)
    text = f"""<ir_version: 9, opset_import: ["": 18]> net (float[batch, 3, height, width] image) => (float[{_OUT[head]}] out)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] four = {{4}}> {{ {_BACKBONE} {body} }}"""
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(1)
    shapes = {"w0": (4, 3, 3, 3), "w1": (4, 4, 3, 3), "w2": (4, 4, 3, 3)}
    weights = {name: random.standard_normal(shape) / 4 for name, shape in shapes.items()}
    random = np.random.default_rng(seed)
    weights |= {"head": random.standard_normal((2, 4, 1, 1)), "r2": random.standard_normal((4, 4)) / 4}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items() if name in used
    )
    return model


def test_the_steps_in_which_a_network_takes_sizes_are_recorded(tmp_path: Path) -> None:
    files = save(tmp_path, seg="steps", cls="classes")
    opened = open_sources(None, files)
    assert any("leaves 'height' free (7 upward, " in line and "in steps of 8 and up to 1 more" in line for line in opened.remarks)
    report = export_repository(opened, ExportOptions(tmp_path / "repo"))
    assert report.remarks.keys().isdisjoint(files)  # it runs wherever it was compared
    kept = read_repository(tmp_path / "repo")
    assert kept.tasks["seg"].sizes["width"] == FreeSize(224, 7, None, 8, 2)
    assert kept.tasks["cls"].sizes["width"] == FreeSize(224)
    assert {size.step for segment in kept.segments.values() for size in segment.sizes.values()} == {1}


def test_a_network_whose_steps_were_not_found_gets_a_line(tmp_path: Path) -> None:
    files = save(tmp_path, seg="steps")
    report = export_repository(open_sources(None, files), ExportOptions(tmp_path / "repo"))
    believed = replace(report.repository.tasks["seg"], sizes=dict.fromkeys(("height", "width"), FreeSize(224, 7)))
    answers = reference_outputs_of(believed, WholeNetwork(files["seg"], ("image",), ("out",)))
    parity = check_parity(report.repository, {"seg": answers}, 1e-4, lambda *progress: None, lambda *look: None)
    assert (
        "does not run at height 111, width 109, which is within its limits: it takes sizes in steps" in parity.remarks["seg"][0]
    )


def test_a_network_that_takes_sizes_in_steps_is_cut_anew(tmp_path: Path) -> None:
    files = save(tmp_path, seg="steps", cls="classes")
    export_repository(open_sources(None, {"seg": files["seg"]}), ExportOptions(tmp_path / "repo"))
    add_tasks(tmp_path / "repo", open_sources(None, {"cls": files["cls"]}), AddOptions())
    report = add_tasks(tmp_path / "repo", Sources({}), AddOptions(recut=True, cuts=CutOptions("exact")))
    assert report.parity_errors["seg"] < 1e-4
    assert read_repository(tmp_path / "repo").tasks["seg"].sizes["height"].step == 8


def save(folder: Path, **heads: str) -> dict[str, Path]:
    files = {}
    for seed, (name, head) in enumerate(heads.items(), 10):
        files[name] = folder / f"{name}.onnx"
        onnx.save(network(head, seed), files[name])
    return files


def check_answers(repo: Path, files: dict[str, Path]) -> None:
    checker, random = ParityChecker(read_repository(repo)), np.random.default_rng(3)
    for name, file in files.items():
        session = open_session(file)
        for height, width in ((32, 32), (47, 33), (9, 70), (1, 2)):
            image = random.standard_normal((3, 3, height, width)).astype(np.float32)
            np.testing.assert_allclose(checker.compose(name, [image])[0], session.run(None, {"image": image})[0], atol=1e-5)


def test_heads_of_all_kinds_share_a_backbone_at_any_size(tmp_path: Path) -> None:
    files = save(tmp_path, **{head: head for head in _HEADS})
    opened = open_sources(None, files)
    assert any("leaves 'height' free (1 upward, no limit was found up to" in remark for remark in opened.remarks)
    report = export_repository(opened, ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    trunks = {name: segment for name, segment in report.repository.segments.items() if name.startswith("trunk")}
    assert sum(segment.macs for segment in trunks.values()) == 4 * 9 * (3 * 112**2 + 4 * 56**2 + 4 * 28**2)  # once, at 224 x 224
    (axes,) = {spec.axes for segment in trunks.values() for spec in segment.inputs if "height" in spec.axes}
    assert axes == ("", "height", "width")
    assert report.repository.tasks["dense"].outputs[0].axes == ("", "height", "width")
    assert report.repository.tasks["pyramid"].outputs[0].axes == ("", "(height+3)/4", "(width+3)/4")
    check_answers(tmp_path / "repo", files)
    more = save(tmp_path, later="pyramid")
    added = add_tasks(tmp_path / "repo", open_sources(None, more), AddOptions())
    assert all(not missed.macs for missed in added.missed.values())
    check_answers(tmp_path / "repo", more)
