from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from exporter.errors import BadModel
from exporter.export import ExportOptions, export_repository
from exporter.graph.network import make_chain
from exporter.open_models import open_sources
from exporter.sources.assumed import assumed, own_labels
from exporter.sources.onnx_file import load_onnx
from exporter.sources.sandbox import canonical_form
from exporter.sources.whole import WholeNetwork, WholeSession
from tests.exporter.sources.strangers import FEATURES, answers, given, images, save, stranger, tensor

ML = "ai.onnx.ml"
_WEIGHTS = np.random.default_rng(2).standard_normal(2 * FEATURES).tolist()


def classifier(labels: dict[str, list[str] | list[int]], zipped: bool = False) -> onnx.ModelProto:
    """As scikit-learn's converters write it: the class, and the scores, perhaps as a map."""
    kind = TensorProto.STRING if "classlabels_strings" in labels else TensorProto.INT64
    linear = helper.make_node(
        "LinearClassifier", ["features"], ["label", "score"], domain=ML, coefficients=_WEIGHTS, intercepts=[0.1, 0.2], **labels
    )
    outputs, nodes = [tensor("label", ["N"], kind), tensor("score", ["N", 2])], [linear]
    if zipped:
        names = {name.replace("_ints", "_int64s"): values for name, values in labels.items()}
        nodes.append(helper.make_node("ZipMap", ["score"], ["map"], domain=ML, **names))
        values = helper.make_sequence_type_proto(helper.make_map_type_proto(kind, helper.make_tensor_type_proto(1, [])))
        outputs[1] = helper.make_value_info("map", values)
    return stranger(nodes, outputs=outputs, domains=[(ML, 1)])


@pytest.mark.parametrize("zipped", [False, True])
def test_text_is_left_out_and_the_scores_have_its_labels(tmp_path: Path, zipped: bool) -> None:
    path = save(tmp_path, classifier({"classlabels_strings": ["cat", "dog"]}, zipped))
    model = load_onnx(path)
    assert [value.name for value in model.graph.outputs] == ["score"]
    assert own_labels(model) == ("cat", "dog")
    assert assumed(model)[0] == "gives text in 'label', which is left out; the other outputs are served."
    ours, whole = answers(path, images(3)), given(path, images(3), ["score"] if not zipped else ["map"])
    expected = whole[0] if not zipped else np.array([[row["cat"], row["dog"]] for row in whole[0]])
    np.testing.assert_allclose(ours[0], expected, rtol=1e-5)


def test_a_map_of_numbers_becomes_the_vector_behind_it(tmp_path: Path) -> None:
    path = save(tmp_path, classifier({"classlabels_ints": [3, 7]}, zipped=True))
    model = load_onnx(path)
    assert [value.name for value in model.graph.outputs] == ["label", "score"]
    assert own_labels(model) == ()  # of two outputs
    label, score = answers(path, images(3))
    assert [[row[3], row[7]] for row in given(path, images(3), ["map"])[0]] == score.tolist()
    assert label[:, 0].tolist() == given(path, images(3), ["label"])[0].tolist()


@pytest.mark.usefixtures("forked_preflight")
@pytest.mark.parametrize("labels", [{"classlabels_strings": ["dog", "cat"]}, {"classlabels_ints": [7, 3]}])
def test_a_map_is_compared_with_as_the_file_gives_it(tmp_path: Path, labels: dict[str, list[str] | list[int]]) -> None:
    """Its classes are in no order, as ONNX Runtime sorts them. Text is no output, so that with it the map is all that can be compared."""
    path = save(tmp_path, classifier(labels, zipped=True))
    outputs = ("score",) if "classlabels_strings" in labels else ("label", "score")
    report = export_repository(open_sources(None, {"pets": path}), ExportOptions(tmp_path / "repo"))
    assert not any("canonical form" in remark for remark in report.remarks.values())
    assert report.parity_errors["pets"] < 1e-6
    session = WholeSession(WholeNetwork(path, ("image",), outputs))
    rows = session.run([images(3)])[-1]
    (maps,) = given(path, images(3), ["map"])
    keys = next(iter(labels.values()))
    np.testing.assert_array_equal(rows, np.array([[row[key] for key in keys] for row in maps], np.float32))
    assert session.run([images(3)], ()) == ()


@pytest.mark.usefixtures("forked_preflight")
def test_what_was_assumed_is_said_on_opening_and_labels_are_the_tasks(tmp_path: Path) -> None:
    path = save(tmp_path, classifier({"classlabels_strings": ["cat", "dog"]}))
    sources = open_sources(None, {"pets": path})
    assert sources.remarks == (f"{path} gives text in 'label', which is left out; the other outputs are served.",)
    assert sources.tasks["pets"]().labels == ("cat", "dog")
    (tmp_path / "pets.labels.txt").write_text("Katze\nHund\n")
    assert open_sources(None, {"pets": path}).tasks["pets"]().labels == ("Katze", "Hund")


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_a_class_per_row_has_an_axis_of_its_own_in_old_opsets_too(tmp_path: Path, opset: int) -> None:
    """As LightGBM's converter writes it; Unsqueeze was given its axes in a way that opsets before 13 do not know."""
    proto = classifier({"classlabels_ints": [3, 7]})
    proto.opset_import[0].version, proto.ir_version = opset, 6
    path = save(tmp_path, proto)
    model = canonical_form(str(path), load_onnx(path))
    make_chain("pets", model)
    label, score = answers(path, images(3))
    assert label.shape == (3, 1)
    expected = given(path, images(3), ["label", "score"])
    np.testing.assert_array_equal(label[:, 0], expected[0])
    np.testing.assert_allclose(score, expected[1], rtol=1e-5)


def test_text_alone_and_text_as_input_are_refused(tmp_path: Path) -> None:
    proto = classifier({"classlabels_strings": ["cat", "dog"]})
    del proto.graph.output[1]
    with pytest.raises(BadModel, match=r"gives nothing but text; .* let the network give its scores, too\."):
        load_onnx(save(tmp_path, proto))
    proto = stranger()
    proto.graph.input.append(tensor("words", ["N", 4], TensorProto.STRING))
    with pytest.raises(BadModel, match=r"takes text in 'words'; .* leave what reads it to the client\."):
        load_onnx(save(tmp_path, proto))


def test_a_sequence_as_output_is_refused_by_its_operator(tmp_path: Path) -> None:
    values = helper.make_value_info("parts", helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, ["N", 4])))
    proto = stranger([helper.make_node("SplitToSequence", ["features"], ["parts"], axis=1)], outputs=[values])
    with pytest.raises(BadModel, match=r"gives a sequence in 'parts', made by SplitToSequence, where a task gives tensors"):
        load_onnx(save(tmp_path, proto))
