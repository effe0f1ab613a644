"""Tasks of every kind that the tuner writes, exported together: what they share is found by content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.repository import Repository
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources
from exporter.torch.export import BackboneExporter
from tests.exporter.test_wirings import answers
from tests.nets import tiny_data, tiny_resnet, tiny_vit
from tuning.network.backbone import Backbone
from tuning.network.checkpoint import TaskCheckpoint, build_network
from tuning.network.low_rank import adaptable_layers
from tuning.network.normalise import Normalise
from tuning.training.fit import FitOptions, fit, fit_method
from tuning.training.methods import lora

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_traces")]

SHORT = FitOptions(epochs=1, batch_size=8, lr=1e-2, device="cpu")


def _tasks(backbone: Backbone, block: str, layers: tuple[str, ...]) -> dict[str, TaskCheckpoint]:
    """A probe, a Siamese task, LoRA on `layers`, and the norms of `block`."""
    data = tiny_data()
    return {
        "probe": fit(backbone, data, "none", SHORT),
        "twin": fit(backbone, data, [block], SHORT, siamese=True),
        "lora": fit_method(backbone, data, lora(layers, 2, 1), SHORT),
        "norms": fit(backbone, data, [f"{block}:norm"], SHORT),
    }


def _export(exporter: BackboneExporter, tasks: Mapping[str, TaskCheckpoint], out: Path) -> ExportReport:
    loaders = {name: (lambda checkpoint=checkpoint: exporter.export_task(checkpoint)) for name, checkpoint in tasks.items()}
    return export_repository(Sources(loaders, exporter.export_backbone), ExportOptions(out, cuts=CutOptions("exact")))


def _logits(backbone: Backbone, checkpoint: TaskCheckpoint, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = build_network(backbone, checkpoint)(
            Normalise(backbone.spec.preprocessing)(torch.from_numpy(images))
        ).numpy()
    return found


NETS = {
    # Forks by hand, in blocks of the chain. ResNet: the stem, then layer1.0 ... layer4.1: layer3.0 is block 5, the head 9.
    "resnet": (tiny_resnet, "layer3.0", ("layer2.0.conv2", "layer4.1.conv1"), {"norms": 5, "lora": 4}),
    # ViT: the patches, then each block in its halves: blocks.1 begins with block 5, blocks.2 with block 7.
    "vit": (tiny_vit, "blocks.1", ("blocks.2.attn.qkv", "blocks.2.attn.proj"), {"norms": 5, "lora": 7}),
}


@pytest.mark.parametrize("net", NETS)
def test_tuned_tasks_of_every_kind_share_what_is_equal(net: str, tmp_path: Path) -> None:
    make, block, layers, forks = NETS[net]
    backbone = make()
    if net == "vit":
        assert set(layers) <= set(adaptable_layers(backbone.network))
    tasks, exporter = _tasks(backbone, block, layers), BackboneExporter(backbone)
    report = _export(exporter, tasks, tmp_path / "repo")
    assert {name: report.plan.forks[name] for name in forks} == forks
    frozen, both = ({step.segment for step in report.plan.tasks[name]} for name in ("probe", "twin"))
    assert len(frozen - both) == 1  # its head: both take the last frozen features
    assert max(report.parity_errors.values()) < 1e-4
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    found, ran = answers(report.repository, list(tasks), {"image": images})
    for name, checkpoint in tasks.items():
        np.testing.assert_allclose(found[name], _logits(backbone, checkpoint, images), rtol=1e-3, atol=1e-4)
    assert len(ran) == len(set(ran))


@pytest.mark.parametrize("net", NETS)
def test_a_siamese_task_beside_a_probe_stores_little_more_than_what_it_owns(net: str, tmp_path: Path) -> None:
    make, block, _, _ = NETS[net]
    backbone = make()
    exporter, data = BackboneExporter(backbone), tiny_data()
    probe, twin = fit(backbone, data, "none", SHORT), fit(backbone, data, [block], SHORT, siamese=True)
    alone = _export(exporter, {"probe": probe}, tmp_path / "alone").repository
    both = _export(exporter, {"probe": probe, "twin": twin}, tmp_path / "both").repository

    def stored(repository: Repository) -> int:
        return sum(segment.parameters for segment in repository.segments.values())

    owned = sum(tensor.numel() for name, tensor in twin.tensors.items() if "running" not in name)
    last = sum(parameter.numel() for parameter in backbone.network.get_submodule(backbone.blocks[-1]).parameters())
    # The tuned block is a second one, and the head has two inputs per feature; blocks after it are one model with the frozen ones, but
    # for the last, which ends in the concatenation. (Exporting folds norms and adds constants: they are few.)
    assert 0.98 * owned < stored(both) - stored(alone) < 1.02 * (owned + last) < stored(alone)
    _, ran = answers(both, ["probe", "twin"], {"image": np.zeros((2, 32, 32, 3), np.uint8)})
    assert len(ran) == len(set(ran))


def test_one_trace_serves_all_siamese_tasks() -> None:
    backbone = tiny_resnet()
    exporter, data = BackboneExporter(backbone), tiny_data()
    exporter.export_backbone()
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    for block in ("layer2.0", "layer4.1"):
        checkpoint = fit(backbone, data, [block], SHORT, siamese=True)
        found = open_session(exporter.export_task(checkpoint).model).run(None, {"image": images})[0]
        np.testing.assert_allclose(found, _logits(backbone, checkpoint, images), rtol=1e-3, atol=1e-4)
    assert len(exporter._exporter._traces) == 2
