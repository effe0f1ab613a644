"""Recurrent layers and products of integers are parts of a network that tasks share, as convolutions are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.sharing.choose import CutOptions
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.recurrent import recurrent
from tests.exporter.test_recut import check_answers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]


def export(out: Path, tasks: dict[str, ir.Model]) -> ExportReport:
    loaders = {name: (lambda model=model: TaskModel(model.clone())) for name, model in tasks.items()}
    return export_repository(Sources(loaders), ExportOptions(out, cuts=CutOptions("exact"), coupled=True))


def test_two_tasks_share_an_lstm(tmp_path: Path) -> None:
    tasks = {"one": recurrent(gru=2, head=3), "two": recurrent(gru=20, head=4)}
    report = export(tmp_path / "repo", tasks)
    assert [len(chain.blocks) for chain in report.chains.values()] == [3, 3]
    assert report.plan.forks == {"one": 1, "two": 1}
    assert not report.remarks
    first = {task.steps[0] for task in report.repository.tasks.values()}
    (trunk,) = [report.repository.segments[step.segment] for step in first]
    assert (trunk.macs, trunk.uncounted) == (5 * 4 * 3 * (4 + 3), ())
    check_answers(report.repository, tasks)


def integers(second: int, head: int) -> ir.Model:
    """float (batch, 6) -> two layers whose products are of integers, without a fraction in their weights -> (batch, 2)."""
    nodes: list[NodeProto] = []
    weights = []
    x = "row"
    for index, seed in enumerate((1, second, head)):
        width = 2 if index == 2 else 6
        values = np.random.default_rng(seed).integers(-3, 4, (6, width), dtype=np.int8)
        weights.append(numpy_helper.from_array(values, f"{index}.w"))
        nodes.append(helper.make_node("Cast", [x], [f"{index}.rounded"], to=TensorProto.INT8))
        nodes.append(helper.make_node("MatMulInteger", [f"{index}.rounded", f"{index}.w"], [f"{index}.product"]))
        nodes.append(helper.make_node("Cast", [f"{index}.product"], [f"{index}.cast"], to=TensorProto.FLOAT))
        x = "logits" if index == 2 else f"{index}.out"
        nodes.append(helper.make_node("Softsign" if index < 2 else "Identity", [f"{index}.cast"], [x]))
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, ["batch", 6])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "integers", [row], [logits], weights)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


def test_two_tasks_share_a_product_of_integers(tmp_path: Path) -> None:
    tasks = {"one": integers(2, 3), "two": integers(20, 4)}
    report = export(tmp_path / "repo", tasks)
    assert [len(chain.blocks) for chain in report.chains.values()] == [3, 3]
    assert report.plan.forks == {"one": 1, "two": 1}
    (trunk,) = {task.steps[0].segment for task in report.repository.tasks.values()}
    assert report.repository.segments[trunk].macs == 36
