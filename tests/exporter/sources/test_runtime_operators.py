"""Operators that ONNX Runtime writes in ONNX's own domain, where ONNX has none of that name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.errors import BadModel
from exporter.open_models import open_sources
from exporter.sources.assumed import assumed
from exporter.sources.onnx_file import load_onnx
from exporter.sources.runtime import open_session

KINDS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def written(
    path: Path,
    operator: str = "SimplifiedLayerNormalization",
    opset: int = 18,
    kind: int = TensorProto.FLOAT,
    axis: int = -1,
    outputs: tuple[str, ...] = ("normal",),
) -> Path:
    """float (batch, 5, 6) -> `operator` over `axis` and what follows -> a product -> (batch, 5, 3)."""
    random = np.random.default_rng(2)
    shape = (6,) if axis in (-1, 2) else (5, 6)
    names = ["scale", "shift"] if operator == "LayerNormalization" else ["scale"]
    weights = {**dict.fromkeys(names, shape), "w": (6, 3)}
    constants = [
        numpy_helper.from_array(random.standard_normal(size).astype(KINDS[kind]), name) for name, size in weights.items()
    ]
    nodes = [
        helper.make_node(operator, ["x", *names], ["normal", *outputs[1:]], axis=axis, epsilon=0.02, name="norm"),
        helper.make_node("MatMul", ["normal", "w"], ["y"]),
    ]
    given = helper.make_tensor_value_info("x", kind, ["batch", 5, 6])
    results = [
        helper.make_tensor_value_info(name, kind, ["batch", 5, size]) for name, size in [("y", 3), *((o, 1) for o in outputs[1:])]
    ]
    graph = helper.make_graph(nodes, "net", [given], results, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [-1, 2, 1])
@pytest.mark.parametrize(
    ("operator", "opset"),
    [("SimplifiedLayerNormalization", 17), ("SimplifiedLayerNormalization", 18), ("LayerNormalization", 13)],
)
def test_it_answers_as_what_onnx_runtime_makes_of_the_file(
    tmp_path: Path, operator: str, opset: int, kind: int, axis: int
) -> None:
    file = written(tmp_path / "net.onnx", operator, opset, kind, axis)
    model = load_onnx(file)
    (said,) = assumed(model)
    assert said == f"has {operator} of ONNX Runtime, which ONNX lacks in opset {opset}: spelt out by other operators."
    rows = {"x": np.random.default_rng(4).standard_normal((3, 5, 6)).astype(KINDS[kind])}
    expected = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, rows)[0]
    found = open_session(model).run(None, rows)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5 if kind == TensorProto.FLOAT else 2e-2)


def test_what_onnx_has_stays(tmp_path: Path) -> None:
    assert assumed(load_onnx(written(tmp_path / "net.onnx", "LayerNormalization", 17))) == ()


def test_it_is_said_and_held_against_the_file(tmp_path: Path) -> None:
    sources = open_sources(None, {"net": str(written(tmp_path / "net.onnx"))})
    assert any("SimplifiedLayerNormalization of ONNX Runtime" in said for said in sources.remarks)


@pytest.mark.parametrize(
    ("operator", "outputs", "words"),
    [
        (
            "SimplifiedLayerNormalization",
            ("normal", "deviation"),
            r"\(node 'norm'\), which ONNX lacks in opset 18; give the file as it was",
        ),
        ("Scale", ("normal",), r"has the operator Scale \(node 'norm'\), which ONNX lacks in opset 18; export it without it\."),
    ],
)
def test_what_cannot_be_spelt_out_is_named(tmp_path: Path, operator: str, outputs: tuple[str, ...], words: str) -> None:
    with pytest.raises(BadModel, match=words):
        load_onnx(written(tmp_path / "net.onnx", operator, outputs=outputs))
