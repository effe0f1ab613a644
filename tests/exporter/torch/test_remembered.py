"""A repository remembers the backbone of its export, and finds it again by its content; what it must not take it refuses in a sentence."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import tuning.network.backbone
from benchmarks.models.synthetic import random_backbone, random_task
from contract.repository import Repository, read_repository
from contract.repository.config import all_tasks_config, to_text
from contract.repository.not_shared import BACKBONE
from contract.repository.origin import Origin
from exporter.add import AddOptions, AddReport, add_tasks
from exporter.deploy import deploy, rollback
from exporter.errors import BackboneChanged, BackboneIsCode, BackboneMoved, NeedsBackbone
from exporter.export import ExportOptions, export_repository
from exporter.open_models import open_sources
from exporter.remove import remove_tasks
from exporter.sources.references import InputOptions
from exporter.sources.remembered import Remembered
from exporter.sources.task_model import Sources
from tests.espalier.test_cli import espalier
from tests.exporter.graphs import Net
from tuning.errors import BackboneMismatch
from tuning.network.backbone import load_backbone, save_backbone
from tuning.network.checkpoint import build_network, save_task

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_traces", "unsynced", "forked_preflight")]

NAME = "test_resnet"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository that was exported with the backbone file beside it, named by its path from there, and tasks."""
    folder = tmp_path_factory.mktemp("remembered")
    backbone = random_backbone("resnet18", 32, channels=(8, 8, 16, 16))
    save_backbone(backbone, folder / "backbone.safetensors")
    for seed, name in enumerate(("first", "second")):
        save_task(random_task(backbone, ("layer4.1",), 3 + seed, seed), folder / f"{name}.safetensors")
    torch.save(build_network(backbone, random_task(backbone, ("layer1.0",), 4, seed=7)).state_dict(), folder / "whole.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sources = open_sources("backbone.safetensors", {"first": "first.safetensors"})
        export_repository(sources, ExportOptions(folder / "repo"))
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, from which commands are given."""
    shutil.copytree(made, tmp_path / "home", symlinks=True)
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def opened(tasks: dict[str, Any], backbone: str | Path | None = None, **options: Any) -> Sources:
    return open_sources(backbone, tasks, InputOptions(**options), remembered=Remembered.by(Path("repo")))


def added(tasks: dict[str, Any], backbone: str | Path | None = None, **options: Any) -> AddReport:
    return add_tasks(Path("repo"), opened(tasks, backbone), AddOptions(**options))


def without_origin(repo: Path) -> None:
    """Make `repo` one of an earlier version, which remembered nothing."""
    there = read_repository(repo)
    config = all_tasks_config(
        there.tasks.values(),
        there.cuts_left_out,
        there.cut_rule,
        digest_version=there.digest_version,
        not_shared=there.not_shared,
    )
    (repo / "all_tasks/config.pbtxt").write_text(to_text(config))
    assert read_repository(repo).origin == Origin()


def test_the_backbone_is_remembered_by_what_it_is(home: Path) -> None:
    record = read_repository(home / "repo").origin.backbone
    assert record is not None
    content = (home / "backbone.safetensors").read_bytes()
    assert (record.reference, record.size_bytes) == ("backbone.safetensors", len(content))
    assert record.sha256 == hashlib.sha256(content).hexdigest()  # as sha256sum says it
    assert record.weights_sha256 == read_repository(home / "repo").tasks["first"].provenance["backbone_sha256"]
    assert record.network.startswith("timm/resnet18 {")


@pytest.mark.parametrize(("task", "file"), [("second", "second.safetensors"), ("whole", "whole.pth")])
def test_a_task_of_weights_alone_comes_without_the_backbone_being_named(home: Path, task: str, file: str) -> None:
    given = add_tasks(
        shutil.copytree(home / "repo", home / "other", symlinks=True),
        open_sources("backbone.safetensors", {task: file}),
        AddOptions(),
    )
    sources = opened({task: file})
    assert "The backbone is backbone.safetensors, as repo remembers it." in sources.remarks
    report = add_tasks(home / "repo", sources, AddOptions())
    assert report.repository.tasks[task].steps == given.repository.tasks[task].steps
    assert report.kept  # the trunk
    assert BACKBONE not in report.remarks


def test_all_changes_keep_what_is_remembered(home: Path) -> None:
    repo, before = home / "repo", read_repository(home / "repo").origin
    deploy(repo, opened({"first": "second.safetensors"}))
    rollback(repo, "first")
    added({"second": "second.safetensors"})
    add_tasks(repo, Sources({}), AddOptions(recut=True))
    remove_tasks(repo, ["first"], gc=True)
    assert read_repository(repo).origin == before != Origin()


def test_a_file_is_found_from_the_repository_where_another_is_here(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backbone.safetensors").write_text("another file of that name")
    sources = open_sources(None, {"second": home / "second.safetensors"}, remembered=Remembered.by(home / "repo"))
    assert any(remark.startswith(f"The backbone is {home / 'backbone.safetensors'}, as") for remark in sources.remarks)
    assert sources.origin.backbone == read_repository(home / "repo").origin.backbone


def test_a_file_that_moved_is_asked_for_and_then_remembered_where_it_is(home: Path) -> None:
    (home / "backbone.safetensors").rename("moved.safetensors")
    record = read_repository(home / "repo").origin.backbone
    assert record is not None
    with pytest.raises(BackboneMoved) as refused:
        opened({"second": "second.safetensors"})
    assert str(refused.value) == (
        f"The repository was exported with the backbone 'backbone.safetensors' (SHA-256 {record.sha256[:12]}..., 230 kB), and there is "
        "no backbone.safetensors here; give the backbone by where it is now."
    )
    report = added({"second": "second.safetensors"}, "moved.safetensors")
    assert BACKBONE not in report.remarks
    found = read_repository(home / "repo").origin.backbone
    assert found is not None
    assert (found.reference, found.sha256) == ("moved.safetensors", record.sha256)


def test_the_commands_need_no_backbone_and_say_what_helps_where_it_is_gone(home: Path) -> None:
    run = espalier("deploy", "second.safetensors", "--to", "repo", cwd=home)
    assert run.returncode == 0, run.stderr
    assert "The backbone is backbone.safetensors, as repo remembers it." in run.stderr
    (home / "backbone.safetensors").unlink()
    run = espalier("add", "repo", "--task", "whole=whole.pth", cwd=home)
    assert run.returncode == 2
    assert "there is no backbone.safetensors here; give the backbone by where it is now. Give it with --backbone." in run.stderr
    assert read_repository(home / "repo").tasks.keys() == {"first", "second"}


def test_a_file_that_changed_is_not_taken(home: Path) -> None:
    other = random_backbone("resnet18", 32, channels=(8, 8, 16, 16), classes=9)
    nn.init.zeros_(next(other.network.parameters()))
    record = read_repository(home / "repo").origin.backbone
    assert record is not None
    save_file(other.network.state_dict(), home / "backbone.safetensors")
    before = sorted((home / "repo").rglob("*"))
    with pytest.raises(
        BackboneChanged, match=rf"\(SHA-256 {record.sha256[:12]}\.\.\., .*backbone\.safetensors is something else by now"
    ):
        added({"whole": "whole.pth"})
    assert sorted((home / "repo").rglob("*")) == before


def test_another_backbone_is_said_and_does_not_take_the_place_of_the_first(home: Path) -> None:
    other = random_backbone("resnet18", 32, channels=(8, 16, 16, 16))
    save_backbone(other, home / "other.safetensors")
    save_task(random_task(other, (), 3, seed=1), home / "third.safetensors")
    before = read_repository(home / "repo").origin
    report = added({"third": "third.safetensors"}, "other.safetensors")
    assert report.remarks[BACKBONE].startswith("is 'other.safetensors' (SHA-256 ")
    assert "another one than 'backbone.safetensors' (SHA-256 " in report.remarks[BACKBONE]
    assert read_repository(home / "repo").origin == before


def test_a_repository_that_remembers_none_asks_for_it_and_remembers_it_then(home: Path) -> None:
    without_origin(home / "repo")
    words = r"give the backbone that it was tuned on, timm/resnet18 with the weights 'random.safetensors' \(their SHA-256 is "
    with pytest.raises(NeedsBackbone, match=words):
        opened({"second": "second.safetensors"})
    added({"second": "second.safetensors"}, "backbone.safetensors")
    assert added({"whole": "whole.pth"}).repository.origin.backbone is not None


def test_what_no_task_needs_is_not_looked_for(home: Path) -> None:
    (home / "backbone.safetensors").unlink()
    Net().save(home / "net.onnx")
    assert opened({"net": "net.onnx"}).backbone is None


def test_an_export_without_a_backbone_remembers_none(home: Path) -> None:
    Net().save(home / "net.onnx")
    export_repository(open_sources(None, {"net": "net.onnx"}), ExportOptions(home / "plain"))
    assert "origin" not in (home / "plain/all_tasks/config.pbtxt").read_text()
    export_repository(open_sources("net.onnx", {"net": "net.onnx"}), ExportOptions(home / "with"))
    record = read_repository(home / "with").origin.backbone
    assert record is not None
    assert (record.reference, record.weights_sha256) == ("net.onnx", "")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says which weights a library has published, by a seed."""
    seeds = [1]

    def create(library: str, name: str, options: dict[str, Any], num_classes: int | None, weights: bool) -> nn.Module:
        torch.manual_seed(seeds[-1])
        return timm.create_model(name, num_classes=num_classes or 3, **options).eval()

    monkeypatch.setattr(tuning.network.backbone, "create_network", create)
    return seeds.append


def small(repo: Path, folder: Path) -> Repository:
    """Export a task on a network by its name, for images that nobody but the export is told of."""
    torch.manual_seed(5)
    for name in ("one", "two"):
        torch.save(timm.create_model(NAME, num_classes=3).state_dict(), folder / f"{name}.pth")
    options = InputOptions("none", 32, mean=(0.1, 0.2, 0.3))
    sources = open_sources(NAME, {"one": folder / "one.pth"}, options)
    return export_repository(sources, ExportOptions(repo, snap=1e-3)).repository


def test_a_network_by_name_and_what_images_become_are_remembered(tmp_path: Path, published: Callable[[int], None]) -> None:
    first = small(tmp_path / "repo", tmp_path)
    record = first.origin.backbone
    assert record is not None
    assert (record.reference, record.sha256, record.has_file) == (NAME, record.weights_sha256, False)
    remembered = Remembered.by(tmp_path / "repo")
    sources = open_sources(None, {"two": tmp_path / "two.pth"}, remembered=remembered)
    assert "As the repository was exported: preprocess none; image size 32; mean 0.1, 0.2, 0.3." in sources.remarks
    report = add_tasks(tmp_path / "repo", sources, AddOptions())
    tasks = report.repository.tasks
    assert (tasks["two"].inputs, tasks["two"].preprocessing) == (tasks["one"].inputs, tasks["one"].preprocessing)
    assert report.snap == 1e-3
    assert "differs by 0.001 of the largest at most" in report.remarks["two"]
    anew = open_sources(None, {"two": tmp_path / "two.pth"}, InputOptions("in-graph", 48), remembered=remembered)
    assert anew.tasks["two"]().model.graph.inputs[0].shape == (anew.tasks["two"]().model.graph.inputs[0].shape[0], 48, 48, 3)
    none = add_tasks(tmp_path / "repo", sources, AddOptions(replace=True, snap=0))
    assert none.snap is None
    assert "0.001" not in none.remarks.get("two", "")

    published(2)
    with pytest.raises(BackboneChanged, match=rf"what '{NAME}' gives is something else by now"):
        open_sources(None, {"two": tmp_path / "two.pth"}, remembered=remembered)


def test_another_network_than_the_backbone_takes_the_images_that_it_says(
    tmp_path: Path, published: Callable[[int], None]
) -> None:
    small(tmp_path / "repo", tmp_path)
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "vit.pth")
    another, same = {"vit": f"test_vit@{tmp_path / 'vit.pth'}"}, {"two": f"{NAME}@{tmp_path / 'two.pth'}"}
    remembered = Remembered.by(tmp_path / "repo")
    found = open_sources(None, another, remembered=remembered)
    assert found.remarks == ("As the repository was exported: preprocess none.",)
    assert found.tasks["vit"]().preprocessing == open_sources(None, another).tasks["vit"]().preprocessing
    how = open_sources(None, same, remembered=remembered).tasks["two"]().preprocessing
    assert how is not None
    assert (how.height, how.mean) == (32, (0.1, 0.2, 0.3))


def test_a_checkpoint_says_on_which_published_network_it_was_tuned(tmp_path: Path, published: Callable[[int], None]) -> None:
    backbone = load_backbone(NAME, image_size=32)
    for seed, name in enumerate(("one", "two")):
        save_task(random_task(backbone, (), 3, seed), tmp_path / f"{name}.safetensors")
    tasks = {name: tmp_path / f"{name}.safetensors" for name in ("one", "two")}
    sources = open_sources(None, tasks)
    assert "The backbone is test_resnet.r160_in1k, on which the task checkpoints were tuned." in sources.remarks
    assert sources.origin.backbone is not None
    assert (sources.origin.backbone.reference, sources.backbone is None) == ("test_resnet.r160_in1k", False)
    published(2)
    with pytest.raises(BackboneMismatch, match="weights"):
        open_sources(None, tasks)
    save_task(random_task(random_backbone(NAME, 32), (), 3, seed=1), tmp_path / "other.safetensors")
    with pytest.raises(NeedsBackbone):  # of two networks, none is taken
        open_sources(None, {**tasks, "other": tmp_path / "other.safetensors"})


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))


def test_code_is_not_run_because_a_repository_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, options = f"{__name__}:make", InputOptions(image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    torch.save(make().state_dict(), tmp_path / "task.pth")
    export_repository(open_sources(reference, {"one": tmp_path / "task.pth"}, options), ExportOptions(tmp_path / "repo"))
    monkeypatch.setattr("exporter.torch.networks._call", lambda name: pytest.fail(f"{name} is run"))
    with pytest.raises(BackboneIsCode, match="is Python code and is run only where somebody names it; give it again"):
        open_sources(None, {"two": tmp_path / "task.pth"}, remembered=Remembered.by(tmp_path / "repo"))
