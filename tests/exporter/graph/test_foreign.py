"""Operators that onnx does not know, or infers nothing for: exported, composed as the file itself answers, and their domains kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from contract.repository.sample import sample_inputs
from exporter.build.parity import ParityChecker
from exporter.errors import UnsupportedModel
from exporter.export import ExportOptions, export_repository
from exporter.graph.shapes import infer
from exporter.sources.onnx_file import load_onnx
from exporter.sources.sandbox import analyse
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.sources.strangers import CLASSES, FEATURES, given, save, stranger

MS, ML = "com.microsoft", "ai.onnx.ml"
_RNG = np.random.default_rng(5)
_FLOATS = numpy_helper.from_array(_RNG.standard_normal((FEATURES, FEATURES)).astype(np.float32), "w")
_VECTOR = numpy_helper.from_array(_RNG.standard_normal(FEATURES).astype(np.float32), "v")
_BYTES = numpy_helper.from_array(_RNG.integers(0, 255, (FEATURES, FEATURES, 1, 1)).astype(np.uint8), "b")
_NIBBLES = numpy_helper.from_array(_RNG.integers(0, 255, (FEATURES, 1, 8)).astype(np.uint8), "n")
_SCALE, _ZERO = numpy_helper.from_array(np.float32(0.02), "s"), numpy_helper.from_array(np.uint8(128), "z")
_LONG, _FLAT = (
    numpy_helper.from_array(np.array([0, 1, FEATURES]), "long"),
    numpy_helper.from_array(np.array([0, FEATURES]), "flat"),
)
_Q = ("q", "s", "z")
_TREES = {f"nodes_{name}ids": ids for name, ids in (("tree", [0, 0, 0]), ("node", [0, 1, 2]), ("feature", [0, 0, 0]))} | {
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [0.3, 0.0, 0.0],
    "n_targets": 1,
    "target_ids": [0, 0],
    "target_nodeids": [1, 2],
    "target_treeids": [0, 0],
    "target_weights": [1.0, 2.0],
}


def quantized(source: str, *nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    quantize = helper.make_node("QuantizeLinear", [source, "s", "z"], ["q"])
    back = helper.make_node("DequantizeLinear", ["k", "s", "z"], ["d"])
    return [quantize, *nodes, back, helper.make_node("Flatten", ["d"], ["o"])]


CASES = {
    "Gelu": [helper.make_node("Gelu", ["features"], ["o"], domain=MS)],
    "FusedMatMul": [helper.make_node("FusedMatMul", ["features", "w"], ["o"], domain=MS, transB=1, alpha=0.5)],
    "SkipLayerNormalization": [
        helper.make_node("Reshape", ["features", "long"], ["l"]),
        helper.make_node("SkipLayerNormalization", ["l", "l", "v", "v"], ["k"], domain=MS),
        helper.make_node("Reshape", ["k", "flat"], ["o"]),
    ],
    "QLinearAdd": quantized("features", helper.make_node("QLinearAdd", [*_Q, *_Q, "s", "z"], ["k"], domain=MS)),
    "MatMulNBits": [
        helper.make_node("MatMulNBits", ["features", "n", "v"], ["o"], domain=MS, K=FEATURES, N=FEATURES, bits=4, block_size=16)
    ],
    "Scaler": [helper.make_node("Scaler", ["features"], ["o"], domain=ML, offset=[0.1] * FEATURES, scale=[2.0] * FEATURES)],
    "Normalizer": [helper.make_node("Normalizer", ["features"], ["o"], domain=ML, norm="L2")],
    "TreeEnsembleRegressor": [
        helper.make_node("TreeEnsembleRegressor", ["features"], ["tree"], domain=ML, **_TREES),
        helper.make_node("Add", ["features", "tree"], ["o"]),
    ],
    "QLinearConv": quantized("pool", helper.make_node("QLinearConv", [*_Q, "b", "s", "z", "s", "z"], ["k"])),
    "ConvInteger": [
        helper.make_node("QuantizeLinear", ["pool", "s", "z"], ["q"]),
        helper.make_node("ConvInteger", ["q", "b", "z", "z"], ["k"]),
        helper.make_node("Cast", ["k"], ["f"], to=1),
        helper.make_node("Mul", ["f", "s"], ["m"]),
        helper.make_node("Flatten", ["m"], ["o"]),
    ],
}


def net(folder: Path, nodes: Sequence[onnx.NodeProto]) -> Path:
    used = {name for node in nodes for name in node.input}
    weights = [w for w in (_FLOATS, _VECTOR, _BYTES, _NIBBLES, _SCALE, _ZERO, _LONG, _FLAT) if w.name in used]
    return save(folder, stranger(nodes, "o", weights, domains=[(MS, 1), (ML, 3), ("own", 1)]))


@pytest.mark.parametrize("operator", CASES)
def test_operators_of_others_are_exported_as_the_file_answers(tmp_path: Path, operator: str) -> None:
    path = net(tmp_path, CASES[operator])
    report = export_repository(Sources({"t": lambda: TaskModel(load_onnx(path))}), ExportOptions(tmp_path / "repo"))
    repository = report.repository
    (image,) = sample_inputs(repository.tasks["t"].inputs, 3).values()
    np.testing.assert_allclose(ParityChecker(repository).compose("t", [image])[0], given(path, image)[0], rtol=1e-4, atol=1e-6)
    written, (domain,) = operator, {node.domain for node in CASES[operator] if node.op_type == operator}
    if operator == "SkipLayerNormalization":  # taken apart
        written, domain = "LayerNormalization", ""
    segments = [onnx.load(repository.model_file(name)) for name in repository.segments]
    (segment,) = [model for model in segments if written in {node.op_type for node in model.graph.node}]
    assert domain in {opset.domain for opset in segment.opset_import}


def test_what_onnx_and_onnx_runtime_do_not_know_is_named(tmp_path: Path) -> None:
    path = net(tmp_path, [helper.make_node("Fold", ["features"], ["o"], domain="own", name="fold_1")])
    with pytest.raises(UnsupportedModel, match=r"behind own.Fold \(node 'fold_1'\), nor by ONNX Runtime; export it without\."):
        analyse("net", load_onnx(path))


def test_inference_goes_on_behind_an_operator_of_others(tmp_path: Path) -> None:
    model = load_onnx(net(tmp_path, [*CASES["Gelu"]]))
    found = infer(model, 3)
    assert found.shapes["o"] == (3, FEATURES)
    assert found.shapes["logits"] == (3, CLASSES)
    assert found.dtypes["o"].name == "FLOAT"
    assert infer(load_onnx(save(tmp_path, stranger())), 3).dtypes == {}


def test_an_output_without_rows_is_named_with_its_shapes(tmp_path: Path) -> None:
    node = helper.make_node("ReduceSum", ["features", "axes"], ["o"], keepdims=1)
    proto = stranger([node], "o", [numpy_helper.from_array(np.array([0]), "axes")])
    words = r"as their first dimension and nowhere else; the shape of 'logits' is \[1, 5\] and \[1, 5\] for 1 and 3 rows\."
    with pytest.raises(UnsupportedModel, match=words):
        analyse("net", load_onnx(save(tmp_path, proto)))
