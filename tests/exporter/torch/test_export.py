from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models.synthetic import random_backbone, random_task
from exporter.export import ExportOptions, export_repository
from exporter.graph.network import make_chain
from exporter.graph.passes.canonical import canonicalise
from exporter.open_models import open_sources
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.torch.export import BackboneExporter
from tuning.network.backbone import Backbone, save_backbone
from tuning.network.checkpoint import build_network, save_task
from tuning.network.normalise import Normalise
from tuning.network.weights import hash_weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_traces")]


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return random_backbone("resnet18", 32, channels=(8, 8, 16, 16))


@pytest.fixture(scope="module")
def exporter(resnet: Backbone) -> BackboneExporter:
    return BackboneExporter(resnet)


def test_a_bound_graph_computes_what_torch_computes(resnet: Backbone, exporter: BackboneExporter) -> None:
    checkpoint = random_task(resnet, ("layer3.0",), 4, seed=1)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    found = open_session(exporter.export_task(checkpoint).model).run(None, {"image": images})[0]
    with torch.inference_mode():
        expected = build_network(resnet, checkpoint)(Normalise(resnet.spec.preprocessing)(torch.from_numpy(images))).numpy()
    assert found.shape == (3, 4)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_binding_does_not_touch_the_traced_graph(resnet: Backbone, exporter: BackboneExporter) -> None:
    digests = [
        [block.digest for block in make_chain("net", canonicalise(exporter.export_backbone().model)).blocks] for _ in range(2)
    ]
    exporter.export_task(random_task(resnet, ("layer1.0",), 3, seed=1))
    digests.append([block.digest for block in make_chain("net", canonicalise(exporter.export_backbone().model)).blocks])
    digests.append([b.digest for b in make_chain("net", canonicalise(BackboneExporter(resnet).export_backbone().model)).blocks])
    assert all(chain == digests[0] for chain in digests)


def test_the_fork_is_found_where_the_block_was_tuned(resnet: Backbone, tmp_path: Path) -> None:
    save_backbone(resnet, tmp_path / "backbone.safetensors")
    subsets = {"probe": (), "late": ("layer4.1",), "middle": ("layer2.1",), "early": ("layer1.0",)}
    for index, (name, subset) in enumerate(subsets.items()):
        save_task(random_task(resnet, subset, 3, seed=index), tmp_path / f"{name}.safetensors")
    sources = open_sources(str(tmp_path / "backbone.safetensors"), {name: tmp_path / f"{name}.safetensors" for name in subsets})
    report = export_repository(sources, ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    assert report.plan.forks == {"probe": 9, "late": 8, "middle": 4, "early": 1}
    tuned_modules = {
        segment.modules for segment in report.repository.segments.values() if segment.name.startswith(("middle-", "early-"))
    }
    assert tuned_modules == {("layer2.1",), ("layer1.0",), ("fc",)}
    assert max(report.parity_errors.values()) < 1e-5
    task = report.repository.tasks["late"]
    assert task.labels == ("class 0", "class 1", "class 2")
    assert task.provenance["backbone_sha256"] == hash_weights(resnet.network)


def test_without_preprocessing_the_input_is_the_networks_own(resnet: Backbone) -> None:
    model = BackboneExporter(resnet, preprocess="none").export_task(random_task(resnet, (), 3, seed=1))
    image = model.model.graph.inputs[0]
    assert (image.dtype.name, list(image.shape)[1:]) == ("FLOAT", [3, 32, 32])
    assert model.preprocessing == resnet.spec.preprocessing  # what is left to the client


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("resnet18", 64, {"channels": (8, 16, 16, 32)}),
        ("vit_tiny_patch16_224", 32, {"embed_dim": 48, "depth": 3, "img_size": 32}),
        ("test_efficientnet", 64, {}),  # depthwise convolutions and squeeze-excitation
    ],
)
def test_macs_agree_with_torchs_counter(name: str, size: int, options: dict[str, object]) -> None:
    backbone = random_backbone(name, size, **options)
    chain = make_chain(name, canonicalise(BackboneExporter(backbone).export_backbone().model))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        backbone.network(torch.zeros(1, 3, size, size))
    assert chain.macs == pytest.approx(counter.get_total_flops() / 2, rel=0.01)
    assert len(chain.blocks) > len(backbone.blocks)
