from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from exporter.chain import make_chain
from exporter.export import ExportOptions, export_repository
from exporter.passes import canonicalise
from exporter.runtime import open_session
from exporter.sources import open_sources
from exporter.torch_export import BackboneExporter
from tuning.backbone import Backbone, load_backbone, save_backbone
from tuning.checkpoint import TaskCheckpoint, build_network, save_task
from tuning.normalise import Normalise
from tuning.weights import hash_weights

pytestmark = pytest.mark.slow


def random_backbone(name: str, folder: Path, image_size: int, **options: object) -> Backbone:
    """A network with random weights and random BatchNorm statistics: with the initial ones, much would fold to nothing."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model(name, **options)
    for key, tensor in network.state_dict().items():
        if key.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif key.endswith("running_var") or (tensor.is_floating_point() and tensor.dim() == 1):
            tensor.uniform_(0.5, 1.5)
    save_file(network.state_dict(), folder / f"{name}.safetensors")
    return load_backbone(name, folder / f"{name}.safetensors", options=options, image_size=image_size)


def tuned(backbone: Backbone, subset: tuple[str, ...], classes: int, seed: int = 1) -> TaskCheckpoint:
    """A task whose blocks and head were changed at random: what training does, without its time."""
    generator = torch.Generator().manual_seed(seed)
    state = backbone.network.state_dict()
    tensors = {name: value.clone() for name, value in state.items() if any(name.startswith(f"{block}.") for block in subset)}
    for value in tensors.values():
        if value.is_floating_point():
            value += 0.05 * torch.rand(value.shape, generator=generator)
    (head,) = backbone.head
    width = backbone.network.get_submodule(head).weight.shape[1]
    tensors[f"{head}.weight"] = torch.randn((classes, width), generator=generator)
    tensors[f"{head}.bias"] = torch.randn((classes,), generator=generator)
    labels = tuple(f"class {index}" for index in range(classes))
    return TaskCheckpoint(tensors, backbone.spec, subset, labels, {"test_accuracy": 0.5}, seed, {})


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return random_backbone("resnet18", tmp_path_factory.mktemp("net"), 32, channels=(8, 8, 16, 16))


@pytest.fixture(scope="module")
def exporter(resnet: Backbone) -> BackboneExporter:
    return BackboneExporter(resnet)


def test_a_bound_graph_computes_what_torch_computes(resnet: Backbone, exporter: BackboneExporter) -> None:
    checkpoint = tuned(resnet, ("layer3.0",), classes=4)
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
    exporter.export_task(tuned(resnet, ("layer1.0",), classes=3))
    digests.append([block.digest for block in make_chain("net", canonicalise(exporter.export_backbone().model)).blocks])
    digests.append([b.digest for b in make_chain("net", canonicalise(BackboneExporter(resnet).export_backbone().model)).blocks])
    assert all(chain == digests[0] for chain in digests)


def test_the_fork_is_found_where_the_block_was_tuned(resnet: Backbone, tmp_path: Path) -> None:
    save_backbone(resnet, tmp_path / "backbone.safetensors")
    subsets = {"probe": (), "late": ("layer4.1",), "middle": ("layer2.1",), "early": ("layer1.0",)}
    for index, (name, subset) in enumerate(subsets.items()):
        save_task(tuned(resnet, subset, classes=3, seed=index), tmp_path / f"{name}.safetensors")
    sources = open_sources(str(tmp_path / "backbone.safetensors"), {name: tmp_path / f"{name}.safetensors" for name in subsets})
    report = export_repository(sources, ExportOptions(tmp_path / "repo"))
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
    model = BackboneExporter(resnet, preprocess="none").export_task(tuned(resnet, (), classes=3))
    image = model.model.graph.inputs[0]
    assert (image.dtype.name, list(image.shape)[1:], model.preprocessing) == ("FLOAT", [3, 32, 32], None)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("resnet18", 64, {"channels": (8, 16, 16, 32)}),
        ("vit_tiny_patch16_224", 32, {"embed_dim": 48, "depth": 3, "img_size": 32}),
        ("mobilenetv3_small_050", 64, {}),
    ],
)
def test_macs_agree_with_torchs_counter(name: str, size: int, options: dict[str, object], tmp_path: Path) -> None:
    backbone = random_backbone(name, tmp_path, size, **options)
    chain = make_chain(name, canonicalise(BackboneExporter(backbone).export_backbone().model))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        backbone.network(torch.zeros(1, 3, size, size))
    assert chain.macs == pytest.approx(counter.get_total_flops() / 2, rel=0.01)
    assert len(chain.blocks) > len(backbone.blocks)
