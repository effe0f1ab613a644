"""The networks that the benchmarks measure: families of tasks on one backbone, made once for all benchmarks of a run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.framework.errors import NoSuchNetwork
from benchmarks.framework.options import Options
from benchmarks.models.some_tasks import only_tasks
from benchmarks.models.synthetic import Family, make_family, random_backbone
from contract.repository import read_repository
from exporter.torch.export import BackboneExporter
from tuning.network.backbone import Backbone

CLASSES = 100
STEM, POOL = "stem", "pool"  # of a ResNet
HEAD = "head"  # a fork after all blocks: linear probes
RANDOM_WEIGHTS = "The networks have random weights, which do not matter for time and memory."


@dataclass(frozen=True)
class TimmNetwork:
    """A timm network. size: pixels of the square image. forks: blocks that the tasks of a family tune, each its own copy; or HEAD."""

    name: str
    size: int
    forks: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


_RESNET = TimmNetwork("resnet50", 224, ("layer4.1", "layer3.0", HEAD))
_VIT = TimmNetwork("vit_small_patch16_224", 224, ("blocks.10", "blocks.6", HEAD))
_TINY = TimmNetwork("resnet18", 32, ("layer4.0",), {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]})


def networks(options: Options) -> tuple[TimmNetwork, ...]:
    """Return the networks of the scale: a ResNet-50 and a ViT-S, or one that is tiny. The first fork is the one to show alone."""
    quick = replace(_RESNET, forks=_RESNET.forks[:1]), replace(_VIT, forks=_VIT.forks[:1])
    return options.pick((_RESNET, _VIT), quick, (_TINY,))


def choose_networks(options: Options) -> tuple[TimmNetwork, ...]:
    """Return those of `networks` that have a word of `options.only` in their names; all without words. Raises NoSuchNetwork."""
    found = networks(options)
    for word in options.only:
        if not any(word.lower() in network.name for network in found):
            raise NoSuchNetwork(word, [network.name for network in found])
    return tuple(network for network in found if not options.only or any(word.lower() in network.name for word in options.only))


def parts_of(network: nn.Module) -> dict[str, nn.Module]:
    """Return the parts of a timm ResNet by name, in order: the stem, each block ("layer1.0"), the pooling. The head is not among them."""
    stem = nn.Sequential(*(network.get_submodule(name) for name in ("conv1", "bn1", "act1", "maxpool")))
    stages = [name for name, _ in network.named_children() if name.startswith("layer")]
    blocks = {f"{stage}.{name}": block for stage in stages for name, block in network.get_submodule(stage).named_children()}
    return {STEM: stem, **blocks, POOL: network.get_submodule("global_pool")}


def subset(fork: str) -> tuple[str, ...]:
    """Return what a task tunes that forks at `fork`, beside its head."""
    return () if fork == HEAD else (fork,)


class NetworkCache:
    """Makes networks; families lie in a folder and are made once. A backbone is traced once, which takes seconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._exporters: dict[str, tuple[Backbone, BackboneExporter]] = {}

    def backbone(self, network: TimmNetwork) -> Backbone:
        """Return the network with random weights and a head of CLASSES classes, as the tasks have."""
        return self._opened(network)[0]

    def exporter(self, network: TimmNetwork) -> BackboneExporter:
        """Return what exports the network and its tasks."""
        return self._opened(network)[1]

    def family(self, network: TimmNetwork, fork: str, tasks: int) -> Family:
        """Return `tasks` tasks that fork at `fork`: each has that block and a head of its own."""
        stem = f"{network.name}-{network.size}-{fork}-"
        made = {int(folder.name.removeprefix(stem)): folder for folder in self._folder.glob(f"{stem}*")}
        enough = [count for count in made if count >= tasks]
        if enough:
            return first_tasks(_reopen(made[min(enough)]), tasks)
        self.forget(network, fork)  # what is too small for now: a larger one can stand in for it
        return self._make(network, fork, tasks, stem)

    def forget(self, network: TimmNetwork, fork: str) -> None:
        """Delete the families that fork at `fork`; those of a ResNet-50 take gigabytes."""
        for folder in self._folder.glob(f"{network.name}-{network.size}-{fork}-*"):
            shutil.rmtree(folder)

    def _make(self, network: TimmNetwork, fork: str, tasks: int, stem: str) -> Family:
        backbone, exporter = self._opened(network)
        aside = Path(tempfile.mkdtemp(dir=self._folder))  # one that was not finished is not found again
        try:
            make_family(backbone, [subset(fork)] * tasks, CLASSES, aside, exporter)
        except BaseException:
            shutil.rmtree(aside)  # gigabytes that others need, where the folder was too small
            raise
        return _reopen(aside.rename(self._folder / f"{stem}{tasks}"))

    def _opened(self, network: TimmNetwork) -> tuple[Backbone, BackboneExporter]:
        if network.name not in self._exporters:
            backbone = random_backbone(network.name, network.size, classes=CLASSES, **network.options)
            self._exporters[network.name] = backbone, BackboneExporter(backbone)
        return self._exporters[network.name]


def network_cache(options: Options) -> NetworkCache:
    """Return the networks of all benchmarks that run with `options`."""
    return options.once(NetworkCache)


def first_tasks(family: Family, count: int) -> Family:
    """Return the family with its first `count` tasks alone, and only what they need."""
    names = list(family.networks)[:count]
    return Family(only_tasks(family.repository, names), {name: family.networks[name] for name in names})


def _reopen(folder: Path) -> Family:
    files = sorted(folder.glob("*.onnx"), key=lambda file: int(file.stem.rpartition("-")[2]))
    return Family(read_repository(folder / "repository"), {file.stem: file for file in files})
