"""The examples of docs/guides/python.md run, in their order, on tiny networks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.documents import examples

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_preflight", "unsynced")]
PAGE = "docs/guides/python.md"
NETWORKS = """
import torch
from torch import nn

def made(seed):
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 8, 3, 2), nn.ReLU())
    torch.manual_seed(seed)
    return nn.Sequential(trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()

def flowers():
    return made(1)

def pets():
    return made(2)
"""


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "networks.py").write_text(NETWORKS)
    picture = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(picture).save("photo.jpg")
    (tmp_path / "photos").mkdir()
    shutil.copy("photo.jpg", "photos/one.jpg")
    known: dict[str, Any] = {}
    for example in examples(PAGE, __file__):
        exec(compile(example.text, PAGE, "exec"), known)
    said = capsys.readouterr().out
    assert "photos/one.jpg" in said
    assert said.endswith("\n2\n")  # the version that was deployed
    assert "one.jpg" in (tmp_path / "answers.csv").read_text()
