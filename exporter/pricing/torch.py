"""Prices of tasks that could be tuned on a torch backbone."""

from __future__ import annotations

import copy
from pathlib import Path

import onnx_ir as ir
import torch
from torch import nn

from contract.repository import Repository, read_repository
from contract.repository.write import recover
from exporter.build.repository_chains import read_repository_chains
from exporter.build.scratch import scratch_folder
from exporter.build.weight_store import WeightStore
from exporter.graph.network import Network
from exporter.pricing.price import MeasureMs, Pricing, Served
from exporter.sharing.choose import CutOptions
from exporter.sources.sandbox import analyse
from exporter.torch.export import NetworkExporter
from tuning.errors import UnknownBlock
from tuning.network.backbone import Backbone
from tuning.network.blocks import is_under, replace_head

_BACKBONE = "the backbone"
_SEED = 0
_NOISE = 0.01  # of a tuned weight; enough to be another weight, too little to upset the network


def open_pricing(
    backbone: Backbone,
    repository: Path | None = None,
    *,
    classes: int | None = None,
    measure: MeasureMs | None = None,
    cuts: CutOptions | None = None,
) -> Pricing:
    """Return the prices of tasks on `backbone`, by the blocks (or other modules, or parameters) that they tune.

    The network is traced now, once, which takes seconds.

    repository: of tasks that are served already; the new task is added as `add_tasks` adds it where nothing is cut anew. Without one, the
    backbone itself is served, and `cuts` says where the new task may leave it.
    classes: outputs of the new head, by default as many as the backbone's own has. measure: see Pricing.
    Asking for the price of what the backbone does not have raises UnknownBlock.
    Raises SharesNothing when no task there has weights of this backbone, DifferentInput when they take another input, RepositoryError
    when `repository` is none, and ExportError when the network cannot be exported.
    """
    given = _read(repository) if repository is not None else None
    how = backbone.spec.preprocessing
    known = {path for path, _ in (*backbone.network.named_modules(), *backbone.network.named_parameters())}
    exporter = NetworkExporter(how.height, how.width, "none" if given and not _takes_images(given) else "in-graph")
    model, _ = analyse(_BACKBONE, exporter.export(backbone.network, how))
    network = Network(_BACKBONE, model)
    served = Served.alone(network, cuts) if given is None else _served(given, network)
    probe = copy.deepcopy(backbone.network)
    replace_head(probe, classes or backbone.spec.num_classes, _SEED)
    if classes not in (None, backbone.spec.num_classes):
        exporter.export(probe, how)  # a head of another size may need a trace of its own

    def export(modules: tuple[str, ...]) -> ir.Model:
        for module in modules:
            if module not in known:
                raise UnknownBlock(module, backbone.blocks)
        return exporter.export_again(tuned_by_chance(probe, modules), how)

    return Pricing(export, served, measure)


@torch.no_grad()
def tuned_by_chance(network: nn.Module, modules: tuple[str, ...]) -> nn.Module:
    """Return a copy of `network` as tuning would leave it: every number in `modules` is another one, and no two are alike.

    The same modules always get the same weights.
    """
    network = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(_SEED)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and is_under(name, modules):
            # Only upwards: a variance stays positive.
            noise = torch.rand(tensor.shape, generator=generator) + 0.5
            tensor += _NOISE * noise * tensor.abs().clamp(min=1e-3)
    return network


def _read(path: Path) -> Repository:
    recover(path)
    return read_repository(path)


def _takes_images(repository: Repository) -> bool:
    return any(spec.dtype == "UINT8" for task in repository.tasks.values() for spec in task.inputs)


def _served(repository: Repository, backbone: Network) -> Served:
    with scratch_folder(repository.path) as scratch:
        repository_chains = read_repository_chains(repository, WeightStore(scratch))
        return Served.in_repository(repository, repository_chains, backbone)
