"""State dicts as training scripts save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import load_state_dict
from torch.optim.swa_utils import AveragedModel

from tests.nets import TINY_RESNET_OPTIONS, tiny_resnet
from tuning.errors import BadCheckpoint
from tuning.network.backbone import load_backbone
from tuning.network.state_dicts import read_state_dict
from tuning.network.weights import hash_weights

RAW, AVERAGED = {"w": torch.zeros(2)}, {"w": torch.ones(2)}


@pytest.mark.parametrize(
    ("content", "taken", "remark"),
    [
        (
            {"state_dict": RAW, "state_dict_ema": AVERAGED, "epoch": 1},
            "state_dict_ema",
            "(state_dict_ema) beside others (state_dict)",
        ),
        ({"model": RAW, "model_ema": AVERAGED, "ema_decay": 0.9}, "model_ema", "what is under 'model' as a file of its own"),
        ({"model": RAW, "ema": {"module": AVERAGED}}, "ema", "as timm does"),
        ({"model": {"state_dict": RAW, "ema_state_dict": AVERAGED}}, "ema_state_dict", "beside others (state_dict)"),
        ({"state_dict_ema": AVERAGED}, "state_dict_ema", ""),
        ({"state_dict": RAW, "state_dict_ema": None, "ema": True}, "", ""),
        (
            {"model": RAW, "ema": {"decay": 0.9, "shadow": [torch.ones(2)]}},
            "",
            "(ema) in a form that is not known; model is taken",
        ),
        (RAW, "", ""),
    ],
)
def test_averaged_weights_are_taken_and_said(tmp_path: Path, content: Any, taken: str, remark: str) -> None:
    file = tmp_path / "net.pth"
    torch.save(content, file)
    found = read_state_dict(file)
    assert torch.equal(found.tensors["w"], (AVERAGED if taken else RAW)["w"])
    assert found.taken == taken
    assert found.source == (f"net.pth ({taken})" if taken else "net.pth")
    assert remark in found.remark
    assert bool(remark) == bool(found.remark)
    if {"state_dict_ema", "model_ema"} & content.keys():
        assert torch.equal(load_state_dict(str(file))["w"], found.tensors["w"])


def test_torchs_own_average_counts_beside_the_weights(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    torch.save({"model": network.state_dict(), "model_ema": AveragedModel(network).state_dict()}, tmp_path / "net.pth")
    assert read_state_dict(tmp_path / "net.pth").tensors.keys() == network.state_dict().keys()


def test_a_backbone_says_which_weights_it_has(tmp_path: Path) -> None:
    raw, averaged = tiny_resnet(seed=0), tiny_resnet(seed=1)
    file = tmp_path / "net.pth"
    torch.save({"state_dict": raw.network.state_dict(), "state_dict_ema": averaged.network.state_dict()}, file)
    loaded = load_backbone(f"resnet18@{file}", options=TINY_RESNET_OPTIONS, num_classes=5, image_size=32)
    assert loaded.spec.weights_sha256 == hash_weights(averaged.network)
    assert loaded.spec.weights == "net.pth (state_dict_ema)"
    assert "the averaged ones are taken" in loaded.remark


def test_averaged_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """An average of parameters alone lacks BatchNorm's statistics."""
    network = tiny_resnet().network
    torch.save({"model": network.state_dict(), "model_ema": dict(network.named_parameters())}, tmp_path / "net.pth")
    with pytest.raises(
        BadCheckpoint, match=r"missing \(.*running_mean.*\(model_ema\) beside others \(model\).*save what is under 'model'"
    ):
        load_backbone(f"resnet18@{tmp_path}/net.pth", options=TINY_RESNET_OPTIONS)
