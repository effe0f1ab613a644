"""LoRA adapters of others as tasks: what a repository then holds."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exporter.torch.networks
from benchmarks.models.synthetic import random_backbone
from exporter.export import ExportOptions, export_repository
from exporter.open_models import open_sources
from exporter.sharing.choose import CutOptions
from exporter.sources.references import InputOptions, find_tasks, parse_reference
from exporter.sources.runtime import open_session
from exporter.torch.networks import open_architecture
from tests.nets import tiny_resnet
from tests.tuning.network.test_adapters import factors, write
from tuning.network.backbone import save_backbone
from tuning.network.blocks import find_head, replace_head
from tuning.network.normalise import Normalise

pytestmark = pytest.mark.slow


def test_an_adapter_shares_with_the_backbone_what_it_leaves_as_it_is(tmp_path: Path) -> None:
    backbone = random_backbone("resnet18", 32, channels=(8, 8, 16, 16))
    save_backbone(backbone, tmp_path / "backbone.safetensors")
    pairs = factors(backbone.network, {"layer4.1.conv2": 2})
    (head,) = find_head(backbone.network)
    more = {f"{head}.weight": torch.ones(3, 16), f"{head}.bias": torch.zeros(3)}
    folder = write(tmp_path / "pets", pairs, more, modules_to_save=[head])
    (tmp_path / "pets.labels.txt").write_text("cat\ndog\nfish\n")
    assert find_tasks(tmp_path, str(tmp_path / "backbone.safetensors")) == {"pets": folder}

    sources = open_sources(tmp_path / "backbone.safetensors", {"pets": folder})
    assert len(sources.remarks) == 1
    assert "merged into 1 layer (layer4.1.conv2), and fc replaced. Of the network's 8 blocks this changes 1" in sources.remarks[0]
    report = export_repository(sources, ExportOptions(tmp_path / "repo"))
    assert report.plan.forks == {"pets": 9}
    assert report.repository.tasks["pets"].labels == ("cat", "dog", "fish")
    assert dict(report.repository.tasks["pets"].provenance) == {"file": "pets", "network": "timm/resnet18"}

    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    found = open_session(sources.tasks["pets"]().model).run(None, {"image": images})[0]
    expected = _merged_by_hand(backbone.network, pairs["layer4.1.conv2"], more, backbone.spec.preprocessing, images)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def _merged_by_hand(network, pair: tuple[Tensor, Tensor], more: dict[str, Tensor], how, images):  # type: ignore[no-untyped-def]
    down, up = pair
    state = dict(network.state_dict())
    state["layer4.1.conv2.weight"] = state["layer4.1.conv2.weight"] + 3.0 * torch.einsum("orxy,rikl->oikl", up, down)
    with torch.inference_mode():
        given = Normalise(how)(torch.from_numpy(images))
        return torch.func.functional_call(_with_outputs(network, 3), {**state, **more}, (given,)).numpy()


def _with_outputs(network, outputs: int):  # type: ignore[no-untyped-def]
    copied = copy.deepcopy(network)
    replace_head(copied, outputs, seed=0)
    return copied.eval()


def test_an_adapter_on_a_network_by_name_takes_its_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published, asked = tiny_resnet().network, []

    def create(library: str, name: str, options: object, classes: int | None, weights: bool) -> nn.Module:
        asked.append((library, name, weights))
        return copy.deepcopy(published)

    monkeypatch.setattr(exporter.torch.networks, "create_network", create)
    pairs = factors(published, {"layer1.0.conv1": 2})
    folder = write(tmp_path / "pets", pairs)
    architecture = open_architecture(parse_reference(f"resnet18@{folder}"), InputOptions(image_size=32), pretrained=True)
    open_sources(None, {"pets": f"resnet18@{folder}"}, InputOptions(image_size=32))
    assert asked == 2 * [("timm", "resnet18", True)]
    down, up = pairs["layer1.0.conv1"]
    changed = architecture.with_weights(folder).state_dict()["layer1.0.conv1.weight"]
    torch.testing.assert_close(
        changed, published.state_dict()["layer1.0.conv1.weight"] + 3.0 * torch.einsum("orxy,rikl->oikl", up, down)
    )


CODE = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
"""


def test_an_adapter_on_python_code_is_merged_into_the_weights_that_it_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapted_code_of_a_user.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import adapted_code_of_a_user  # type: ignore[import-not-found]

    write(tmp_path / "late", factors(adapted_code_of_a_user.make(), {"5": 2}))
    name = "adapted_code_of_a_user:make"
    sources = open_sources(name, {"late": f"{name}@late", "plain": name}, InputOptions("none", 8))
    report = export_repository(sources, ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    assert report.plan.forks == {"late": 2, "plain": 3}
