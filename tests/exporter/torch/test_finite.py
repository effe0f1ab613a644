"""Infinities in what a torch network keeps: in a mask they are nothing to worry about, in a weight no answer is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.errors import NonFiniteWeights
from exporter.export import ExportOptions, export_repository
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from exporter.torch.export import NetworkExporter

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

SIZE, WIDTH = 8, 6


class Masked(nn.Module):
    """Attention of image rows over those before them, the farther the less (ALiBi), or over what `mask` says."""

    def __init__(self, mask: Tensor | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Linear(3 * SIZE, WIDTH), nn.Linear(WIDTH, 2)
        self.norm = nn.BatchNorm1d(SIZE)
        places = torch.arange(SIZE)
        causal = (places - places[:, None]).float().masked_fill(places > places[:, None], -torch.inf)
        self.register_buffer("mask", causal if mask is None else mask)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.norm(self.embed(image.permute(0, 2, 1, 3).flatten(2)))
        weights = (tokens @ tokens.transpose(1, 2) + self.mask).softmax(-1)
        return self.head((weights @ tokens).mean(1))


def test_a_mask_with_infinities_is_taken_and_said(tmp_path: Path) -> None:
    network, exporter = Masked().eval(), NetworkExporter(SIZE, SIZE, "none")
    model = exporter.export(network, None)
    assert exporter.remark == "has infinite numbers in the buffer 'mask', which is taken for a mask."
    images = torch.randn(3, 3, SIZE, SIZE)
    with torch.inference_mode():
        expected = network(images).numpy()
    np.testing.assert_allclose(open_session(model).run(None, {"image": images.numpy()})[0], expected, atol=1e-5)
    report = export_repository(Sources({"t": lambda: TaskModel(model, remark=exporter.remark)}), ExportOptions(tmp_path / "repo"))
    assert report.parity_errors["t"] < 1e-5
    assert "taken for a mask" in report.remarks["t"]


def refused(network: nn.Module) -> str:
    with pytest.raises(NonFiniteWeights) as error:
        NetworkExporter(SIZE, SIZE, "none").export(network.eval(), None)
    return str(error.value)


def test_a_mask_that_leaves_no_answer_is_refused() -> None:
    mask = torch.full((SIZE, SIZE), -torch.inf)
    mask[0, 0] = 1
    assert "'mask' holds NaN or infinite values" in refused(Masked(mask))


@pytest.mark.parametrize("name", ["mask", "embed.weight", "norm.running_var"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_anywhere_and_infinities_in_weights_are_refused(name: str, value: float) -> None:
    network = Masked(torch.zeros(SIZE, SIZE) + 1)
    network.state_dict()[name].view(-1)[0] = value
    assert f"{name!r} holds NaN or infinite values" in refused(network)
