"""The shared trunk that is written by hand in torch answers as whole networks do, and runs its trunk once."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from benchmarks.latency.torch_variants import NoSteps, open_rivals, run_all, steps_of, write_by_hand
from benchmarks.models.families import CLASSES, HEAD
from benchmarks.models.synthetic import random_backbone
from tuning.network.backbone import Backbone

pytestmark = pytest.mark.slow

ROWS = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return random_backbone("resnet18", 32, classes=CLASSES, channels=[8, 8, 16, 16], layers=[1, 1, 1, 1])


@pytest.fixture(scope="module")
def vit() -> Backbone:
    sizes = {"patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "img_size": 32}
    return random_backbone("vit_tiny_patch16_224", 32, classes=CLASSES, **sizes)


@pytest.mark.parametrize(
    ("which", "fork"), [("resnet", "layer4.0"), ("resnet", "layer2.0"), ("resnet", HEAD), ("vit", "blocks.1"), ("vit", HEAD)]
)
def test_it_answers_as_whole_networks_do(which: str, fork: str, request: pytest.FixtureRequest) -> None:
    backbone = request.getfixturevalue(which)
    by_hand, whole = write_by_hand(backbone, fork, 3), open_rivals(backbone, fork, 3)
    for tasks in (1, 3):
        found = by_hand.run(tasks, ROWS)
        assert len(found) == tasks
        for left, right in zip(found, run_all(whole[:tasks], ROWS), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_the_trunk_runs_once_and_frozen_weights_are_there_once(resnet: Backbone) -> None:
    by_hand = write_by_hand(resnet, "layer3.0", 3)
    ran: list[nn.Module] = []
    modules = {step for steps in (by_hand.trunk, *by_hand.rests) for step in steps if isinstance(step, nn.Module)}
    for module in modules:
        module.register_forward_hook(lambda module, *_: ran.append(module))
    by_hand.run(3, ROWS)
    assert [ran.count(step) for step in by_hand.trunk if isinstance(step, nn.Module)] == [1] * (len(by_hand.trunk) - 1)
    tuned, frozen, *_, head = zip(*by_hand.rests, strict=True)
    assert [len({*map(id, steps)}) for steps in (tuned, frozen, head)] == [3, 1, 3]


def test_a_network_without_steps_is_refused() -> None:
    with pytest.raises(NoSteps, match="A Linear has no steps"):
        steps_of(nn.Linear(1, 1))
