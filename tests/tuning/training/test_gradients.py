from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from contract.kinds.kind import Kind
from contract.kinds.labels import Labels
from contract.kinds.values import Values
from tests.nets import tiny_data, tiny_resnet
from tuning.data.labelled import Split, TaskData
from tuning.network.normalise import Normalise
from tuning.training.gradients import block_gradients
from tuning.training.loop import FitOptions
from tuning.training.methods import linear_probe
from tuning.training.trainer import Trainer

pytestmark = pytest.mark.slow

OPTIONS = FitOptions(epochs=2, batch_size=5, lr=1e-2, device="cpu")
ROWS = np.arange(2, 19, dtype=np.int64)


def other_kind(kind: Kind) -> TaskData:
    """Targets of two outputs: the brightness class as labels, or as numbers."""
    data = tiny_data()

    def split(given: Split) -> Split:
        columns = np.stack([given.targets == 0, given.targets >= 1], 1)
        return Split(given.images, columns.astype(np.float32))

    return replace(data, train=split(data.train), test=split(data.test), kind=kind, labels=("dark", "light"))


@pytest.mark.parametrize(
    "data", [tiny_data(), other_kind(Labels((0.5, 0.5))), other_kind(Values(("mm", "kg")))], ids=["classes", "labels", "values"]
)
def test_gradients_are_those_of_the_mean_loss_over_all_rows(data: TaskData) -> None:
    backbone = tiny_resnet()
    trainer = Trainer(backbone, data, OPTIONS)
    probe = trainer.prepare(linear_probe(2), 0)
    found = block_gradients(trainer, probe, 1000, ROWS, 0)

    network = trainer.run(probe, ROWS, 0).network.eval().requires_grad_(True)
    rows = torch.from_numpy(ROWS)
    scores = nn.Sequential(Normalise(backbone.spec.preprocessing), network)(torch.from_numpy(data.train.images)[rows])
    network.zero_grad()
    trainer.objective.loss(scores, trainer.targets[rows]).backward()
    for index, block in enumerate(backbone.blocks):
        parameters = list(network.get_submodule(block).parameters())
        gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        size = torch.cat([p.detach().flatten() for p in parameters]).norm()
        expected = {"relative": gradient.norm() / size, "norm": gradient.norm(), "sum": gradient.abs().sum()}
        for measure, value in expected.items():
            assert found.norms[measure][index] == pytest.approx(float(value), rel=1e-3), (measure, block)
    assert found.macs > 1000
    assert found.epochs == 3


def test_measuring_leaves_the_network_alone() -> None:
    trainer = Trainer(tiny_resnet(), tiny_data(), OPTIONS)
    probe = trainer.prepare(linear_probe(1), 0)
    before = {name: tensor.clone() for name, tensor in trainer.backbone.network.state_dict().items()}
    first, again = (block_gradients(trainer, probe, 0, ROWS, 0) for _ in range(2))
    assert first.norms == again.norms
    for name, tensor in trainer.backbone.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(parameter.requires_grad for parameter in trainer.backbone.network.parameters())
    assert all(parameter.grad is None for parameter in probe.network.parameters())
