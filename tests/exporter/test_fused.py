"""Networks that ONNX Runtime has optimised offline share and answer as they did before."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers import optimizer

from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.graph.network import make_chain
from exporter.graph.passes.canonical import canonicalise
from exporter.graph.passes.skips import SplitSkips
from exporter.sharing.choose import CutOptions
from exporter.sources.onnx_file import load_onnx
from exporter.sources.task_model import Sources, TaskModel
from exporter.torch.export import NetworkExporter
from tests.exporter.graphs import Net
from tests.exporter.test_add import check_answers as check_images
from tests.exporter.test_recut import check_answers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

WIDTH, HEADS, SIZE = 24, 3, 32


def by_runtime(source: Path, target: Path) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def by_transformers(source: Path, target: Path) -> None:
    optimizer.optimize_model(str(source), "vit", HEADS, WIDTH, opt_level=0).save_model_to_file(str(target))


@pytest.fixture(scope="module")
def vits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two small vision transformers: the second with its last layer tuned."""
    folder = tmp_path_factory.mktemp("vits")
    torch.manual_seed(0)
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=SIZE, depth=3, embed_dim=WIDTH, num_heads=HEADS, num_classes=5
    ).eval()
    tuned = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in tuned.get_submodule("blocks.2").parameters():
            parameter.add_(0.05)
    exporter = NetworkExporter(SIZE, SIZE, "none")
    for name, each in (("one", network), ("two", tuned)):
        ir.save(exporter.export(each, None, name), folder / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in ("one", "two")}


def export(out: Path, files: dict[str, Path]) -> ExportReport:
    loaders = {name: (lambda file=file: TaskModel(load_onnx(file), file=file)) for name, file in files.items()}
    return export_repository(Sources(loaders), ExportOptions(out, cuts=CutOptions("exact")))


@pytest.mark.parametrize(
    ("optimise", "operator"),
    [(by_runtime, "FusedMatMul"), (by_transformers, "SkipLayerNormalization")],
    ids=["runtime", "transformers"],
)
def test_an_optimised_transformer_shares_what_it_did_before(
    tmp_path: Path, vits: dict[str, Path], optimise: Callable[[Path, Path], None], operator: str
) -> None:
    files = {name: tmp_path / f"{name}.onnx" for name in vits}
    for name, file in files.items():
        optimise(vits[name], file)
        assert operator in {node.op_type for node in onnx.load(file).graph.node}
    before, after = (export(tmp_path / name, given) for name, given in (("before", vits), ("after", files)))
    shared = {}
    for name, report in (("before", before), ("after", after)):
        trunk = report.repository.segments[report.repository.tasks["one"].steps[0].segment]
        shared[name] = trunk.macs, sum(block.macs for block in report.chains["one"].blocks)
        assert report.repository.tasks["two"].steps[0].segment == trunk.name
        check_answers(report.repository, {task: ir.load(file) for task, file in vits.items()})
    assert shared["after"] == shared["before"]
    assert shared["after"][0] > shared["after"][1] // 2


def test_an_optimised_convolutional_network_counts_what_is_fused(tmp_path: Path) -> None:
    nets = {"one": Net(), "two": Net((1, 2, 3, 9), head=7)}
    for name, net in nets.items():
        by_runtime(net.save(tmp_path / f"{name}.float.onnx"), tmp_path / f"{name}.onnx")
    files = {name: tmp_path / f"{name}.onnx" for name in nets}
    assert "FusedConv" in {node.op_type for node in onnx.load(files["one"]).graph.node}
    report = export(tmp_path / "repo", files)
    plain = make_chain("plain", canonicalise(nets["one"].model()))
    assert [block.macs for block in report.chains["one"].blocks] == [block.macs for block in plain.blocks]
    assert report.plan.forks == {"one": 4, "two": 4}
    check_images(report.repository, nets)


def skipping(bias: bool, outputs: tuple[str, ...], opset: int = 18) -> ir.Model:
    """float (batch, 5, 6) -> a product, added to what it is of, and normalised."""
    random = np.random.default_rng(3)
    weights = {"w": (6, 6), "scale": (6,), "shift": (6,), "bias": (6,)}
    constants = [numpy_helper.from_array(random.standard_normal(size).astype(np.float32), name) for name, size in weights.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node(
            "SkipLayerNormalization",
            ["x", "product", "scale", "shift", *(["bias"] if bias else [])],
            ["normal", "", "deviation" if "deviation" in outputs else "", "sum"],
            domain="com.microsoft",
            epsilon=0.01,
        ),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5, 6])
    sizes = {"deviation": ["batch", 5, 1]}
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes.get(name, ["batch", 5, 6])) for name in outputs]
    graph = helper.make_graph(nodes, "skipping", [given], results, constants if bias else constants[:3])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("outputs", [("normal",), ("sum",), ("normal", "sum")])
def test_what_is_taken_apart_answers_as_it_did(bias: bool, outputs: tuple[str, ...]) -> None:
    model = skipping(bias, outputs)
    rows = {"x": np.random.default_rng(4).standard_normal((2, 5, 6)).astype(np.float32)}
    expected = answers(model, rows)
    result = SplitSkips()(model)
    assert result.modified
    assert [node.op_type for node in model.graph] == ["MatMul", *["Add"] * (1 + bias), "LayerNormalization"]
    assert [value.name for value in model.graph.outputs] == [*outputs]
    for found, wanted in zip(answers(model, rows), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("model", [skipping(True, ("normal", "deviation")), skipping(True, ("normal",), opset=16)])
def test_what_cannot_be_said_otherwise_stays(model: ir.Model) -> None:
    assert not SplitSkips()(model).modified


def answers(model: ir.Model, rows: dict[str, np.ndarray]) -> list[np.ndarray]:
    content = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, rows)
