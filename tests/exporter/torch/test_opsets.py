"""One network of torch's, exported by torch at several opsets, is one network."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from exporter.sources.onnx_file import load_onnx
from exporter.sources.sandbox import analyse

pytestmark = pytest.mark.slow


class Mixed(nn.Module):
    """Operators that torch's exporter writes otherwise in one opset than in another."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.conv, self.batch_norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.layer_norm, self.hidden, self.head = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.stem(image)))
        x = functional.avg_pool2d(self.batch_norm(self.conv(x)), 2)
        x = functional.interpolate(x, scale_factor=2, mode="bilinear")
        x = functional.pad(x, (1, 1, 1, 1)).clamp(-3, 3)
        left, right = x.split(4, 1)
        x = self.layer_norm(torch.cat([right, left], 1).mean((2, 3)))
        x = functional.gelu(functional.gelu(self.hidden(x)), approximate="tanh")
        x = functional.hardswish(x.unsqueeze(1).sigmoid().squeeze(1))
        return self.head(x.softmax(-1))  # type: ignore[no-any-return]


def test_the_opset_of_torchs_export_makes_no_difference(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, image = Mixed().eval(), torch.randn(2, 3, 16, 16)
    nn.init.normal_(network.norm.weight)
    found = {}
    for opset in (18, 21):  # test_versions.py has each operator at all of them
        path = tmp_path / f"{opset}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (image,),
                path,
                dynamo=True,
                opset_version=opset,
                external_data=False,
                verbose=False,
                dynamic_shapes=({0: torch.export.Dim("rows")},),
            )
        chain = analyse("net", load_onnx(path))[1]
        found[opset] = [block.content for block in chain.blocks], [tap.address for tap in chain.outputs]
    assert found[18] == found[21]
    assert len(found[18][0]) > 8
