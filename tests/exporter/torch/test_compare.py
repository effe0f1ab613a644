"""What torch computes and what its ONNX graph computes may differ by rounding, however coarse, and by nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

import exporter.torch.export
from exporter.add import AddOptions, add_tasks
from exporter.errors import ExportError
from exporter.export import ExportOptions, export_repository
from exporter.sources.task_model import Sources, TaskModel
from exporter.torch.export import NetworkExporter

pytestmark = pytest.mark.slow


class Offset(nn.Module):
    """A convolution adds what is then taken away: torch rounds in between, and ONNX Runtime merges both."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.away = nn.Parameter(torch.full((2, 1, 1), -float(offset)))
        with torch.no_grad():
            self.conv.bias += offset  # type: ignore[operator]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.conv(image) + self.away, 1)


def export(offset: float) -> tuple[ir.Model, str]:
    torch.manual_seed(0)
    exporter = NetworkExporter(8, 8, "none")
    return exporter.export(Offset(offset), None), exporter.remark


def wrong(model: ir.Model) -> None:
    kernel = next(value for value in model.graph.initializers.values() if str(value.name).endswith("conv.weight"))
    kernel.const_value = ir.tensor(kernel.const_value.numpy() * np.float32(1.1), name=kernel.name)  # type: ignore[union-attr]


def test_rounding_is_let_through_and_said(tmp_path: Path) -> None:
    model, remark = export(100_000)
    error, noise = (float(figure) for figure in re.findall(r"\de-\d\d|\d\.\de-\d\d", remark))
    assert 1e-3 < error <= 2 * noise
    whole = TaskModel(model, remark=remark)
    sources = Sources({"t": lambda: replace(whole, model=model.clone())}, lambda: replace(whole, model=model.clone()))
    report = export_repository(sources, ExportOptions(tmp_path / "repo"))
    assert {name: remark in said for name, said in report.remarks.items()} == {"the backbone": True, "t": True}
    added = add_tasks(tmp_path / "repo", Sources({"u": sources.tasks["t"]}, sources.backbone), AddOptions())
    assert added.remarks.keys() == {"the backbone", "u"}
    assert export(0)[1] == ""


@pytest.mark.parametrize(("offset", "noise"), [(100_000, r"\d\.\d\de-03"), (0, "0.00e\\+00|\\d.\\d\\de-0[78]")])
def test_what_is_more_than_rounding_is_refused_with_both_figures(
    monkeypatch: pytest.MonkeyPatch, offset: float, noise: str
) -> None:
    optimise = exporter.torch.export.optimise
    monkeypatch.setattr(exporter.torch.export, "optimise", lambda model: (wrong(model), optimise(model)))
    words = rf"differ by \d\.\d\de-02 of the largest output, .* alone make a difference of ({noise}); allowed: 1e-03, or twice"
    with pytest.raises(ExportError, match=words):
        export(offset)


def test_what_is_rounding_for_the_most_part_proves_nothing() -> None:
    with pytest.raises(ExportError, match=r"does not compute what the torch network computes \(they differ by"):
        export(10_000_000)
