"""Families of task models with random weights: fine for time and memory, which do not depend on the weights' values."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from contract.preprocessing import Preprocessing
from contract.repository import Repository
from exporter.export import ExportOptions, export_repository
from exporter.sources.task_model import Sources, TaskModel
from exporter.torch.export import BackboneExporter
from tuning.network.backbone import Backbone, load_backbone
from tuning.network.checkpoint import TaskCheckpoint, tuned_names


@dataclass(frozen=True)
class Family:
    """A repository, and the whole networks that it was made from, as ONNX files by task."""

    repository: Repository
    networks: dict[str, Path]


def random_backbone(name: str, image_size: int, *, classes: int | None = None, **options: Any) -> Backbone:
    """Return the timm network `name` with random weights, and random BatchNorm statistics: the initial ones would fold to nothing.

    classes: outputs of the head, None: as many as the network has by default. options: of its constructor.
    """
    torch.manual_seed(0)
    network = timm.create_model(name, **options)
    randomise_norms(network)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random.safetensors"
        save_file(network.state_dict(), weights)
        return load_backbone(name, weights, options=options, num_classes=classes, image_size=image_size)


@torch.no_grad()
def randomise_norms(network: nn.Module) -> None:
    """Give the statistics, scales and biases of `network` random values, in place."""
    for key, tensor in network.state_dict().items():
        if key.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif tensor.is_floating_point() and tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)


def make_family(
    backbone: Backbone,
    subsets: Sequence[tuple[str, ...]],
    classes: int,
    folder: Path,
    exporter: BackboneExporter | None = None,
) -> Family:
    """Export one task per subset into `folder`; its blocks and head get weights of their own, as if they had been tuned.

    exporter: of this backbone, where one has traced it already.
    """
    exporter = exporter or BackboneExporter(backbone)
    networks: dict[str, Path] = {}
    loaders: dict[str, Callable[[], TaskModel]] = {}
    for index, subset in enumerate(subsets):
        name = f"task-{index}"
        model = exporter.export_task(random_task(backbone, subset, classes, seed=index))
        networks[name] = folder / f"{name}.onnx"
        ir.save(model.model, networks[name])
        loaders[name] = _reload(networks[name], model.preprocessing)
    report = export_repository(Sources(loaders, exporter.export_backbone), ExportOptions(folder / "repository"))
    return Family(report.repository, networks)


def random_task(backbone: Backbone, subset: tuple[str, ...], classes: int, seed: int) -> TaskCheckpoint:
    """Return a task whose blocks are the backbone's with 1 % of noise, and whose head is random."""
    generator = torch.Generator().manual_seed(seed)
    state = backbone.network.state_dict()
    tensors = {}
    for name in tuned_names(backbone, subset, all_weights=False):
        value = state[name]
        in_head = any(name.startswith(f"{head}.") for head in backbone.head)
        shape = (classes, *value.shape[1:]) if in_head else value.shape
        noise = torch.randn(shape, generator=generator)
        tensors[name] = 0.05 * noise if in_head else value * (1 + 0.01 * noise) if value.is_floating_point() else value.clone()
    labels = tuple(f"class {index}" for index in range(classes))
    return TaskCheckpoint(tensors, backbone.spec, subset, labels, {}, seed, {"method": "random weights"})


def _reload(path: Path, how: Preprocessing | None) -> Callable[[], TaskModel]:
    return lambda: TaskModel(ir.load(path), preprocessing=how)
