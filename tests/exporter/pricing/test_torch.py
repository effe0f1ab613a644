"""Prices of tasks on real backbones against what really tuning and adding them costs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.models.synthetic import random_task
from contract.repository import read_repository
from exporter.export import ExportOptions, export_repository
from exporter.pricing.price import SharesNothing
from exporter.pricing.torch import open_pricing, tuned_by_chance
from exporter.sharing.choose import CutOptions
from exporter.sources.task_model import LoadTaskModel, Sources
from exporter.torch.export import BackboneExporter
from tests.exporter.pricing.test_price import amounts, really_added, totals
from tests.nets import tiny_data, tiny_resnet, tiny_vit
from tuning.errors import UnknownBlock
from tuning.network.backbone import Backbone
from tuning.training.fit import FitOptions, fit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_traces")]

CLASSES = 3
RESNET_SUBSETS: list[tuple[str, ...]] = [(), ("layer2.1", "layer3.1")]
VIT_SUBSETS: list[tuple[str, ...]] = [("blocks.1",), ("blocks.0", "blocks.1")]


def tune(backbone: Backbone, subset: tuple[str, ...], exporter: BackboneExporter) -> LoadTaskModel:
    checkpoint = fit(backbone, tiny_data(CLASSES), subset, FitOptions(epochs=1))
    return lambda: exporter.export_task(checkpoint)


@pytest.mark.parametrize(
    ("make", "there", "subsets", "rule"),
    [
        (tiny_resnet, ("layer1.1", "layer4.1"), RESNET_SUBSETS, "stages"),
        (tiny_vit, ("blocks.1", "blocks.2"), VIT_SUBSETS, "exact"),
    ],
)
def test_a_price_is_what_tuning_and_adding_costs(
    make: Callable[[], Backbone], there: tuple[str, ...], subsets: list[tuple[str, ...]], rule: str, tmp_path: Path
) -> None:
    backbone = make()
    exporter = BackboneExporter(backbone)
    tasks = {block: random_task(backbone, (block,), CLASSES, seed) for seed, block in enumerate(there)}
    loaders = {f"task{i}": (lambda task=task: exporter.export_task(task)) for i, task in enumerate(tasks.values())}
    cuts = CutOptions(rule)  # type: ignore[arg-type]
    export_repository(Sources(loaders, exporter.export_backbone), ExportOptions(tmp_path / "repo", cuts=cuts))
    pricing = open_pricing(backbone, tmp_path / "repo", classes=CLASSES)
    for number, subset in enumerate(subsets):
        copied = tmp_path / f"repo{number}"
        shutil.copytree(tmp_path / "repo", copied)
        model = tune(backbone, subset, exporter)().model
        assert amounts(pricing.price(subset)) == really_added(copied, model, exporter.export_backbone().model), subset


def test_without_a_repository_the_backbone_is_the_first_task(tmp_path: Path) -> None:
    backbone = tiny_resnet()
    exporter = BackboneExporter(backbone)

    def exported(name: str, **tasks: LoadTaskModel) -> tuple[int, int]:
        sources = Sources({"backbone": exporter.export_backbone, **tasks})
        return totals(export_repository(sources, ExportOptions(tmp_path / name)).repository)

    pricing = open_pricing(backbone, classes=CLASSES)
    alone = exported("alone")
    both = exported("both", task=tune(backbone, ("layer2.1",), exporter))
    assert amounts(pricing.price(["layer2.1"])) == (both[0] - alone[0], both[1] - alone[1])


def test_the_part_after_the_fork_is_measured_as_a_model_of_its_own() -> None:
    inputs: list[tuple[int | str, ...]] = []

    def measure(model: object) -> float:
        inputs.append(tuple(model.graph.inputs[0].shape)[1:])  # type: ignore[attr-defined]
        return 1.0

    pricing = open_pricing(tiny_resnet(), measure=measure, cuts=CutOptions("exact"))
    assert pricing.price(["layer4.1"]).fork == "layer4.0"
    assert pricing.price(["layer3.0", "layer4.1"]).fork == "layer2.1"
    assert inputs == [(16, 1, 1), (8, 4, 4)]


def test_weights_by_chance_all_change_and_variances_stay_positive() -> None:
    network = tiny_resnet().network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    after = tuned_by_chance(network, ("layer2.0",)).state_dict()
    for name, tensor in after.items():
        tuned = name.startswith("layer2.0.") and tensor.is_floating_point()
        assert bool((tensor != before[name]).all()) if tuned else bool((tensor == before[name]).all()), name
    assert float(after["layer2.0.bn1.running_var"].min()) > 0
    assert all(bool((tensor == before[name]).all()) for name, tensor in network.state_dict().items())


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    backbone = tiny_resnet()
    exporter = BackboneExporter(backbone, preprocess="none")
    task = random_task(backbone, ("layer4.1",), CLASSES, seed=1)
    sources = Sources({"task": lambda: exporter.export_task(task)}, exporter.export_backbone)
    export_repository(sources, ExportOptions(tmp_path / "repo"))
    with pytest.raises(SharesNothing, match="has a block with the weights of this backbone"):
        open_pricing(tiny_resnet(seed=1), tmp_path / "repo")
    # The repository takes float images, normalised by the client; so does the task to come.
    pricing = open_pricing(backbone, tmp_path / "repo")
    trunk = min(read_repository(tmp_path / "repo").segments.values(), key=lambda segment: segment.blocks)
    assert pricing.price(["layer4.1"]).macs == pricing.macs - (trunk.macs if "trunk" in trunk.name else 0)
    assert pricing.price(["layer4.1.conv2"]).macs == pricing.price(["layer4.1"]).macs
    with pytest.raises(UnknownBlock, match=r"layer9\.0"):
        pricing.price(["layer9.0"])
