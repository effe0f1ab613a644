"""Whole torch networks as tasks: one trace for each architecture, and what the repository then holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import espalier
import exporter.torch.export
import exporter.torch.networks
import exporter.torch.sources
from benchmarks.models.synthetic import random_backbone, random_task
from contract.preprocessing import Preprocessing
from exporter.errors import NonFiniteWeights
from exporter.export import ExportOptions, export_repository
from exporter.open_models import open_sources
from exporter.sources.references import InputOptions
from exporter.sources.runtime import open_session
from exporter.torch.export import NetworkExporter
from tuning.network.backbone import save_backbone
from tuning.network.checkpoint import build_network, load_task, save_task
from tuning.network.normalise import Normalise
from tuning.network.state_dicts import read_state_dict

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_traces")]


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The networks that were traced."""
    traced: list[nn.Module] = []
    trace = exporter.torch.export.trace

    def counting(module: nn.Module, example: torch.Tensor) -> object:
        traced.append(module)
        return trace(module, example)

    monkeypatch.setattr(exporter.torch.export, "trace", counting)
    return traced


def test_tasks_of_every_kind_on_one_backbone_share_one_trace_and_one_trunk(tmp_path: Path, traces: list[nn.Module]) -> None:
    backbone = random_backbone("resnet18", 32, channels=(8, 8, 16, 16))
    save_backbone(backbone, tmp_path / "backbone.safetensors")
    networks = {
        "early": build_network(backbone, random_task(backbone, ("layer1.0",), 4, seed=1)),
        "late": build_network(backbone, random_task(backbone, ("layer4.1",), 7, seed=2)),
    }
    torch.save({"model": networks["early"].state_dict()}, tmp_path / "early.pt")
    save_file(networks["late"].state_dict(), tmp_path / "late.safetensors")
    save_task(random_task(backbone, (), 3, seed=3), tmp_path / "probe.safetensors")
    (tmp_path / "early.labels.txt").write_text("a\nb\nc\nd\n")
    files = {"early": "early.pt", "late": "late.safetensors", "probe": "probe.safetensors"}
    sources = open_sources(tmp_path / "backbone.safetensors", {name: tmp_path / file for name, file in files.items()})
    assert not traces
    report = export_repository(sources, ExportOptions(tmp_path / "repo"))
    assert len(traces) == 1
    assert report.plan.forks == {"early": 1, "late": 8, "probe": 9}
    tasks = report.repository.tasks
    assert [(task.labels[:2], task.outputs[0].shape) for task in tasks.values()] == [
        (("a", "b"), (4,)),
        ((), (7,)),
        (("class 0", "class 1"), (3,)),
    ]
    assert dict(tasks["late"].provenance) == {"file": "late.safetensors", "network": "timm/resnet18"}
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    for name, network in networks.items():
        found = open_session(sources.tasks[name]().model).run(None, {"image": images})[0]
        with torch.inference_mode():
            expected = network(Normalise(backbone.spec.preprocessing)(torch.from_numpy(images))).numpy()
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_networks_by_name_without_preprocessing(tmp_path: Path, traces: list[nn.Module]) -> None:
    for classes in (3, 5):
        torch.manual_seed(classes)
        torch.save(timm.create_model("test_resnet", num_classes=classes).state_dict(), tmp_path / f"{classes}.pth")
    tasks = {"three": f"test_resnet@{tmp_path}/3.pth", "five": f"timm/test_resnet@{tmp_path}/5.pth"}
    options = InputOptions("none", 32, mean=(0.1, 0.2, 0.3))
    repository = export_repository(open_sources(None, tasks, options), ExportOptions(tmp_path / "repo")).repository
    assert len(traces) == 1
    task = repository.tasks["three"]
    assert (task.inputs[0].dtype, task.inputs[0].shape, task.outputs[0].shape) == ("FP32", (3, 32, 32), (3,))
    assert task.preprocessing is not None
    assert (task.preprocessing.width, task.preprocessing.mean) == (32, (0.1, 0.2, 0.3))

    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with espalier.open(repository.path) as opened:  # pictures are normalised by the server
        (found,) = opened.predict(image, ["three"], 3).tasks["three"]
        floats = task.preprocessing.as_input(image[None], "FP32", "NCHW")
        logits = opened.infer("three", {"image": floats})["three"][0]
    assert [label.label for label in found.labels] == [str(index) for index in np.argsort(-logits)]


class _ConvolutionalHead(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(classes)
        self.stem = nn.Conv2d(3, 4, 3)
        self.head = nn.Conv2d(4, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(images).relu()).mean((2, 3), keepdim=True).flatten(1)


class _ScaledHead(_ConvolutionalHead):
    """Scales each class by a constant that the graph holds."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * torch.linspace(1, 2, self.head.out_channels)


@pytest.mark.parametrize(("kind", "expected"), [(_ConvolutionalHead, 1), (_ScaledHead, 2)])
def test_a_head_whose_size_is_in_the_graph_is_adapted_or_traced_anew(
    traces: list[nn.Module], kind: type[_ConvolutionalHead], expected: int
) -> None:
    exporter_ = NetworkExporter(8, 8)
    how = Preprocessing(8, 8)
    image = {"image": np.zeros((1, 8, 8, 3), np.uint8)}
    for classes in (3, 5, 3, 5):
        assert open_session(exporter_.export(kind(classes).eval(), how)).run(None, image)[0].shape == (1, classes)
    assert len(traces) == expected


def test_two_normalisations_share_a_trace(traces: list[nn.Module]) -> None:
    exporter_, network = NetworkExporter(8, 8), _ConvolutionalHead(3).eval()
    images = np.full((1, 8, 8, 3), 100, np.uint8)
    for mean in ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3)):
        how = Preprocessing(8, 8, mean=mean)
        found = open_session(exporter_.export(network, how)).run(None, {"image": images})[0]
        with torch.inference_mode():
            expected = network(Normalise(how)(torch.from_numpy(images))).numpy()
        assert np.abs(found - expected).max() < 1e-5
    assert len(traces) == 1


def test_a_callable_as_the_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traces: list[nn.Module]) -> None:
    (tmp_path / "a_users_code.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef make():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))\n"
    )
    monkeypatch.chdir(tmp_path)
    sources = open_sources("a_users_code:make", {"same": "a_users_code:make"}, InputOptions("none", 8))
    report = export_repository(sources, ExportOptions(tmp_path / "repo"))
    assert len(traces) == 1
    assert report.plan.forks == {"same": 2}
    assert report.repository.tasks["same"].preprocessing is None


def test_weights_in_memory_must_be_finite() -> None:
    network = _ConvolutionalHead(3)
    with torch.no_grad():
        network.head.weight[0] = torch.inf
    with pytest.raises(NonFiniteWeights, match=r"head\.weight"):
        NetworkExporter(8, 8).export(network, Preprocessing(8, 8))


def test_the_checkpoint_of_one_task_is_read_once_and_those_of_several_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = random_backbone("resnet18", 32, channels=(8, 8, 16, 16))
    save_backbone(backbone, tmp_path / "backbone.safetensors")
    checkpoint = random_task(backbone, ("layer4.1",), 4, seed=1)
    save_task(checkpoint, tmp_path / "tuned.safetensors")
    save_file(build_network(backbone, checkpoint).state_dict(), tmp_path / "whole.safetensors")
    read: list[str] = []

    def counted(load: Callable[..., object]) -> Callable[..., object]:
        return lambda path, *more: read.append(path.name) or load(path, *more)  # type: ignore[func-returns-value]

    monkeypatch.setattr(exporter.torch.sources, "load_task", counted(load_task))
    monkeypatch.setattr(exporter.torch.networks, "read_state_dict", counted(read_state_dict))

    def loaded(*names: str) -> list[str]:
        read.clear()
        files = {name: tmp_path / f"{name}.safetensors" for name in names}
        for load in open_sources(tmp_path / "backbone.safetensors", files).tasks.values():
            load()
        return read

    assert loaded("tuned") == ["tuned.safetensors"]
    assert loaded("whole") == ["whole.safetensors"]
    assert loaded("tuned", "whole") == 2 * ["tuned.safetensors", "whole.safetensors"]
