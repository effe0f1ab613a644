"""Tasks are exported for the images that they were tuned on, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from benchmarks.models.synthetic import random_task
from exporter.add import AddOptions, add_tasks
from exporter.errors import ContradictsTask, DifferentImages, UnlikeRepository
from exporter.export import ExportOptions, export_repository
from exporter.open_models import open_sources
from exporter.sources.references import InputOptions
from tests.nets import tiny_preprocessing, tiny_resnet
from tuning.errors import BackboneMismatch
from tuning.network.backbone import Backbone, load_backbone, save_backbone
from tuning.network.checkpoint import build_network, save_task

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_traces", "unsynced")]


def _tuned(backbone: Backbone, seed: int = 1, **images: Any) -> Any:
    """A task that was tuned on such images."""
    spec = replace(backbone.spec, preprocessing=replace(backbone.spec.preprocessing, **images))
    return random_task(Backbone(spec, backbone.network), ("layer4.1",), 3, seed=seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone for 32 pixels, tasks that were tuned on others, and a whole network."""
    folder, backbone = tmp_path_factory.mktemp("inputs"), tiny_resnet()
    save_backbone(backbone, folder / "backbone.safetensors")
    tasks = {
        "small": _tuned(backbone, height=24, width=24),
        "small-too": _tuned(backbone, seed=2, height=24, width=24),
        "large": _tuned(backbone, height=48, width=48),
        "cropped": _tuned(backbone, height=24, width=24, crop_fraction=0.5, interpolation="nearest"),
        "grey": _tuned(backbone, height=24, width=24, mean=(0.5, 0.5, 0.5)),
    }
    for name, task in tasks.items():
        save_task(task, folder / f"{name}.safetensors")
    return folder


def _open(folder: Path, *tasks: str, **options: Any) -> Any:
    named = {name: folder / f"{name}.safetensors" for name in tasks}
    return open_sources(folder / "backbone.safetensors", named, InputOptions(**options))


def test_the_repository_takes_what_the_tasks_were_tuned_on(folder: Path, tmp_path: Path) -> None:
    repository = export_repository(_open(folder, "small", "small-too"), ExportOptions(tmp_path / "repo")).repository
    for task in repository.tasks.values():
        assert task.inputs[0].shape == (24, 24, 3)
        assert task.preprocessing is not None
        assert (task.preprocessing.height, task.preprocessing.interpolation) == (24, "bilinear")
    for options in ({"image_size": 24}, {"mean": (0.5, 0.4, 0.3)}):
        assert _open(folder, "small", **options).tuned["small"].preprocessing.height == 24
    with pytest.raises(UnlikeRepository, match=r"'large' was tuned on 48x48 pixels, but 'small', .* takes 24x24 pixels; tune it"):
        add_tasks(tmp_path / "repo", _open(folder, "large"), AddOptions())
    with pytest.raises(UnlikeRepository, match=r"'cropped' was tuned on interpolation nearest and crop_fraction 0\.5, but"):
        add_tasks(tmp_path / "repo", _open(folder, "cropped"), AddOptions())


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        (
            ("small", "small-too", "large"),
            "small on 24x24 pixels, small-too on 24x24 pixels, large on 48x48 pixels; all tasks of one",
        ),
        (("small", "cropped"), "cropped on interpolation nearest and crop_fraction 0.5"),
        (("grey", "small"), "grey on mean 0.5,0.5,0.5, small on mean 0.5,0.4,0.3"),
    ],
)
def test_tasks_that_were_tuned_on_different_images_are_refused(folder: Path, tasks: tuple[str, ...], words: str) -> None:
    with pytest.raises(DifferentImages) as caught:
        _open(folder, *tasks)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"image_size": 32},
            "image_size says 32x32 pixels, but task 'small' was tuned on 24x24 pixels; leave image_size out",
        ),
        ({"mean": (0.1, 0.2, 0.3)}, "mean says mean 0.1,0.2,0.3, but task 'small' was tuned on mean 0.5,0.4,0.3"),
        ({"std": (1.0, 1.0, 1.0)}, "std says std 1,1,1"),
    ],
)
def test_options_do_not_overrule_what_a_task_was_tuned_on(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ContradictsTask) as caught:
        _open(folder, "small", **options)
    assert words in str(caught.value)


def test_what_does_not_say_its_images_takes_those_of_the_others_and_that_is_said(folder: Path) -> None:
    save_file(tiny_resnet(seed=3).network.state_dict(), folder / "whole.safetensors")
    sources = _open(folder, "small", "whole")
    assert sources.remarks == (
        "whole.safetensors does not say what images it takes; 24x24 pixels are taken, on which the tasks were tuned that say it (small).",
    )
    assert _open(folder, "whole").remarks == ()


@pytest.mark.parametrize("images", [{"height": 24, "width": 24}, {"crop_fraction": 0.5}])
def test_a_task_is_never_put_on_a_backbone_for_other_images(images: dict[str, Any]) -> None:
    backbone = tiny_resnet()
    with pytest.raises(BackboneMismatch, match=r"tuned on a backbone with images of .*, but the given backbone has"):
        build_network(backbone, _tuned(backbone, **images))


def test_a_network_that_is_built_for_one_size_is_built_for_that_of_the_tasks(tmp_path: Path) -> None:
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    how = tiny_preprocessing(32)
    loaded = load_backbone(f"vit_tiny_patch16_224@{tmp_path}/vit.pth", preprocessing=how)
    assert (loaded.spec.preprocessing, loaded.spec.options) == (how, {"img_size": 32})
