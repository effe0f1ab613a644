from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from benchmarks.models.synthetic import random_task
from exporter.export import ExportOptions, export_repository
from exporter.open_models import open_sources
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.torch.export import BackboneExporter
from tests.nets import tiny_data, tiny_resnet, tiny_vit
from tuning.errors import BadData, BadOptions, UnsupportedNetwork, WrongTensors
from tuning.network.backbone import Backbone, save_backbone
from tuning.network.blocks import is_under
from tuning.network.checkpoint import TaskCheckpoint, build_network, load_task, save_task
from tuning.network.normalise import Normalise
from tuning.pruning.prune import branch_macs, cut_task, prune_task
from tuning.training.fit import FitOptions, evaluate, fit

pytestmark = pytest.mark.usefixtures("kept_traces")

SHORT = FitOptions(epochs=2, batch_size=8, lr=1e-2)


def _task(backbone: Backbone, *subset: str) -> TaskCheckpoint:
    return random_task(backbone, subset, 3, seed=1)


def test_a_cut_task_round_trips(tmp_path: Path) -> None:
    backbone = tiny_resnet()
    cut, _ = cut_task(backbone, _task(backbone, "layer2.0", "layer4.1"), 0.5)
    save_task(cut, tmp_path / "cut.safetensors")
    read = load_task(tmp_path / "cut.safetensors")
    assert read.pruned
    image = torch.rand(2, 3, 32, 32)
    network = build_network(backbone, read)
    assert torch.equal(network(image), build_network(backbone, cut)(image))
    assert network.get_submodule("layer4.1").conv1.weight.shape == (8, 16, 3, 3)
    assert not network.training


def test_files_without_the_word_are_not_pruned(tmp_path: Path) -> None:
    backbone, path = tiny_resnet(), tmp_path / "task.safetensors"
    save_task(_task(backbone, "layer4.1"), path)
    with safe_open(path, "pt") as file:
        assert '"pruned": false' in file.metadata()["task"]
    assert not load_task(path).pruned


def test_macs_and_bytes_of_a_cut_task_by_hand() -> None:
    backbone, image = tiny_resnet(), torch.zeros(1, 3, 32, 32)
    task = _task(backbone, "layer4.1")
    cut, _ = cut_task(backbone, task, 0.5)
    owned = ("layer4.1", "fc")
    # Two 3x3 convolutions between 16 channels on one pixel, and a head of 16 x 3.
    assert branch_macs(build_network(backbone, task), owned, image) == 2 * 9 * 16 * 16 + 48
    assert branch_macs(build_network(backbone, cut), owned, image) == 2 * 9 * 16 * 8 + 48
    saved = sum(tensor.nbytes for tensor in task.tensors.values()) - sum(tensor.nbytes for tensor in cut.tensors.values())
    assert saved == 4 * (9 * 16 * 16 + 4 * 8)  # of both convolutions a half, and of the norm between them


def test_without_paths_all_macs_count() -> None:
    network, image = tiny_resnet().network, torch.zeros(1, 3, 32, 32)
    assert branch_macs(network, (), image) > branch_macs(network, ("layer1.1",), image) > 0


def test_narrow_tensors_need_the_word_pruned() -> None:
    backbone = tiny_resnet()
    cut, _ = cut_task(backbone, _task(backbone, "layer4.1"), 0.5)
    with pytest.raises(WrongTensors, match="of another shape"):
        build_network(backbone, replace(cut, pruned=False))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("layer4.1.bn1.weight", (7,)),  # not what its running statistics have
        ("layer4.1.conv1.weight", (8, 16, 1, 1)),
        ("layer4.1.conv1.weight", (17, 16, 3, 3)),
        ("fc.weight", (3, 8)),  # the head is not inside a block
    ],
)
def test_shapes_that_do_not_fit_are_named(name: str, shape: tuple[int, ...]) -> None:
    backbone = tiny_resnet()
    cut, _ = cut_task(backbone, _task(backbone, "layer4.1"), 0.5)
    with pytest.raises(WrongTensors, match="of another shape"):
        build_network(backbone, replace(cut, tensors={**cut.tensors, name: torch.zeros(shape)}))


def test_layers_that_do_not_fit_each_other_are_named() -> None:
    backbone = tiny_resnet()
    cut, _ = cut_task(backbone, _task(backbone, "layer4.1"), 0.5)
    with pytest.raises(WrongTensors, match=r"3 of another shape \(layer4\.1\.conv1\.weight, layer4\.1\.bn1"):
        build_network(backbone, replace(cut, tensors={**cut.tensors, "layer4.1.conv1.weight": torch.zeros(5, 16, 3, 3)}))


def test_a_probe_has_nothing_to_prune() -> None:
    backbone = tiny_resnet()
    with pytest.raises(BadOptions, match="no tuned block"):
        cut_task(backbone, _task(backbone), 0.5)


def test_what_passes_nothing_on_inside_cannot_be_pruned() -> None:
    backbone = tiny_vit()
    with pytest.raises(UnsupportedNetwork, match="nothing to prune"):
        cut_task(backbone, _task(backbone, "blocks.1.attn"), 0.5)


def test_a_part_of_a_block_can_be_pruned() -> None:
    backbone = tiny_vit()
    _, (cut,) = cut_task(backbone, _task(backbone, "blocks.1.mlp"), 0.25)
    assert (cut.layer, cut.channels, cut.kept) == ("blocks.1.mlp.fc1", 128, 96)


def test_other_labels_are_refused() -> None:
    backbone = tiny_resnet()
    with pytest.raises(BadData, match="has the labels class0, class1, class2, but the task has class 0, class 1, class 2"):
        prune_task(backbone, _task(backbone, "layer4.1"), tiny_data())


@pytest.mark.slow
@pytest.mark.parametrize(("make", "block"), [(tiny_resnet, "layer4.0"), (tiny_vit, "blocks.2")])
def test_a_pruned_task_is_trained_on_and_the_rest_is_bit_identical(make: Callable[[], Backbone], block: str) -> None:
    backbone, data = make(), tiny_data()
    before = {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}
    tuned = fit(backbone, data, [block], SHORT)
    result = prune_task(backbone, tuned, data, SHORT)
    network = build_network(backbone, result.checkpoint)
    for name, tensor in before.items():
        assert torch.equal(backbone.network.state_dict()[name], tensor), name
        if not is_under(name, (block, *backbone.head)):
            assert torch.equal(network.state_dict()[name], tensor), name
    assert result.untrained.macs == result.after.macs < result.before.macs
    assert result.untrained.weight_bytes == result.after.weight_bytes < result.before.weight_bytes
    assert result.before.test_accuracy == tuned.scores["test_accuracy"]
    assert result.after.test_accuracy == evaluate(network, data.test, backbone.spec.preprocessing)
    untrained = cut_task(backbone, tuned, 0.5)[0].tensors
    assert all(not torch.equal(t, untrained[n]) for n, t in result.checkpoint.tensors.items() if "norm" not in n and t.ndim > 1)
    assert result.checkpoint.provenance["features_computed_once"] is True
    assert result.checkpoint.provenance["method"] == "pruned subtuning"


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"siamese": True}, {"all_weights": True}])
def test_siamese_and_wholly_tuned_tasks_can_be_pruned(how: dict[str, bool]) -> None:
    backbone, data = tiny_resnet(), tiny_data()
    tuned = fit(backbone, data, "all" if "all_weights" in how else ["layer4.1"], replace(SHORT, epochs=1), **how)
    result = prune_task(backbone, tuned, data, replace(SHORT, epochs=1))
    assert result.after.macs < result.before.macs
    network = build_network(backbone, result.checkpoint)
    assert result.after.test_accuracy == evaluate(network, data.test, backbone.spec.preprocessing)
    again = prune_task(backbone, result.checkpoint, data, replace(SHORT, epochs=1))
    assert again.after.macs < result.after.macs
    assert not any(name.startswith("pruned pruned") for name in (again.checkpoint.provenance["method"],))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "early", "late"), [(tiny_resnet, "layer2.1", "layer4.0"), (tiny_vit, "blocks.1", "blocks.2")])
def test_a_pruned_task_is_exported_and_shares_the_trunk(
    make: Callable[[], Backbone], early: str, late: str, tmp_path: Path
) -> None:
    backbone = make()
    pruned, _ = cut_task(backbone, _task(backbone, late), 0.5)
    unpruned = random_task(backbone, (late,), 4, seed=2)
    exporter = BackboneExporter(backbone)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    normalised = Normalise(backbone.spec.preprocessing)(torch.from_numpy(images))
    for task in (unpruned, pruned, cut_task(backbone, random_task(backbone, (early,), 2, seed=3), 0.25)[0], unpruned):
        found = open_session(exporter.export_task(task).model).run(None, {"image": images})[0]
        with torch.inference_mode():
            expected = build_network(backbone, task)(normalised).numpy()
        assert found.shape == (3, len(task.labels))
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()

    save_backbone(backbone, tmp_path / "backbone.safetensors")
    files = {name: tmp_path / f"{name}.safetensors" for name in ("pruned", "unpruned")}
    save_task(pruned, files["pruned"])
    save_task(unpruned, files["unpruned"])
    sources = open_sources(str(tmp_path / "backbone.safetensors"), files)
    report = export_repository(sources, ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    assert report.plan.forks["pruned"] == report.plan.forks["unpruned"] > 0
    assert max(report.parity_errors.values()) < 1e-5
