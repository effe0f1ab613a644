from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.nets import tiny_data, tiny_resnet, tiny_vit
from tuning.errors import BadOptions
from tuning.network.backbone import Backbone
from tuning.training.compute import Compute, find_compute
from tuning.training.loop import FitOptions
from tuning.training.methods import subtuning
from tuning.training.trainer import Trainer

SHORT = FitOptions(epochs=2, batch_size=8, lr=1e-3, device="cpu")


@pytest.mark.parametrize("device", ["quantum", "cuda:99", "meta", "", "cpu:zero"])
def test_an_unknown_device_gets_one_sentence(device: str) -> None:
    with pytest.raises(BadOptions, match=r"^Device '.*' cannot be used; this machine has cpu and .*\. Give auto, or cpu\.$"):
        find_compute(device)


def test_an_unknown_precision_lists_the_known() -> None:
    with pytest.raises(BadOptions, match="precision must be one of auto, float32, bfloat16, not 'float16'"):
        find_compute("cpu", "float16")  # type: ignore[arg-type]


def test_a_cpu_computes_in_float32_unless_asked_otherwise() -> None:
    assert find_compute("cpu") == Compute("cpu", bfloat16=False, channels_last=True)
    assert find_compute("cpu", "bfloat16").bfloat16


def test_images_and_convolutions_get_the_wanted_layout_and_nothing_else_changes() -> None:
    images = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    last, first = Compute("cpu"), Compute("cpu", channels_last=False)
    assert last.put(images.float()).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last.put(images.float()), images)
    assert last.put(images) is images  # bytes in (n, height, width, 3) are no feature map
    assert first.put(images.float()).is_contiguous()
    convolution = nn.Conv2d(3, 4, 3)
    before = convolution.weight.clone()
    assert last.place(convolution) is convolution
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(convolution.weight, before)


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "block"), [(tiny_resnet(), "layer3.0"), (tiny_vit(), "blocks.1")], ids=["resnet", "vit"])
def test_bfloat16_trains_near_float32_and_its_weights_stay_float32(backbone: Backbone, block: str) -> None:
    scores = {}
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(backbone, tiny_data(), replace(SHORT, precision=precision))
        trained = trainer.run(trainer.prepare(subtuning([block], 2)))
        assert math.isfinite(trained.loss)
        assert {t.dtype for t in trained.network.parameters()} == {torch.float32}
        scores[precision] = trainer.logits(trained, "test")
    assert scores["bfloat16"].dtype == torch.float32
    assert not torch.equal(scores["float32"], scores["bfloat16"]), "bfloat16 was not used"
    torch.testing.assert_close(scores["bfloat16"], scores["float32"], rtol=0.1, atol=0.1)


@pytest.mark.slow
def test_the_layout_does_not_change_the_result() -> None:
    scores = []
    for channels_last in (True, False):
        trainer = Trainer(tiny_resnet(), tiny_data(), SHORT)
        if not channels_last:
            trainer.compute = replace(trainer.compute, channels_last=False)
            trainer._base.to(memory_format=torch.contiguous_format)
        trained = trainer.run(trainer.prepare(subtuning(["layer2.1"], 2)))
        scores.append(trainer.logits(trained, "test"))
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-3, atol=1e-4)
