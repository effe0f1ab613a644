from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.nets import tiny_resnet, tiny_vit
from tuning.errors import BackboneMismatch, BadCheckpoint, CannotWrite, UnknownBlock, WrongTensors
from tuning.network.backbone import Backbone, save_backbone
from tuning.network.checkpoint import TaskCheckpoint, build_network, load_task, read_kind, save_task, tuned_names


def _task(backbone: Backbone, subset: tuple[str, ...] = ("layer2.0",)) -> TaskCheckpoint:
    """A checkpoint whose tensors are all sevens: no training needed to tell them from the backbone's."""
    state = backbone.network.state_dict()
    tensors = {name: torch.full_like(state[name], 7) for name in tuned_names(backbone, subset, all_weights=False)}
    for name in tensors:
        if name.startswith("fc."):
            tensors[name] = torch.full((2, *state[name].shape[1:]), 7.0)
    return TaskCheckpoint(
        tensors, backbone.spec, subset, ("off", "on"), {"test_accuracy": 0.5}, 3, {"method": "subtuning", "epochs": 2}
    )


def test_round_trip(tmp_path: Path) -> None:
    written = _task(tiny_resnet())
    save_task(written, tmp_path / "task.safetensors")
    read = load_task(tmp_path / "task.safetensors")
    for field in ("backbone", "subset", "labels", "scores", "seed", "provenance", "all_weights"):
        assert getattr(read, field) == getattr(written, field), field
    assert read.tensors.keys() == written.tensors.keys()
    assert all(torch.equal(tensor, written.tensors[name]) for name, tensor in read.tensors.items())
    assert [entry.name for entry in tmp_path.iterdir()] == ["task.safetensors"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_are_for_whom_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        save_task(_task(tiny_resnet()), tmp_path / "task.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "task.safetensors").stat().st_mode) == mode


def test_network_is_a_fresh_copy_with_the_tasks_tensors() -> None:
    backbone = tiny_resnet()
    network = build_network(backbone, _task(backbone))
    assert not network.training
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    state, original = network.state_dict(), backbone.network.state_dict()
    assert all((state[name] == 7).all() for name in state if name.startswith(("layer2.0.", "fc.")))
    assert torch.equal(state["layer1.0.conv1.weight"], original["layer1.0.conv1.weight"])
    assert original["fc.weight"].shape == (5, 16)
    assert not (original["layer2.0.conv1.weight"] == 7).any()


def test_tuned_names_of_a_block_and_head_by_hand() -> None:
    layers = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    block = {"layer1.1.conv1.weight", "layer1.1.conv2.weight"}
    block |= {f"layer1.1.bn{n}.{part}" for n in (1, 2) for part in layers}
    assert set(tuned_names(tiny_resnet(), ("layer1.1",), all_weights=False)) == block | {"fc.weight", "fc.bias"}


def test_other_weights_are_refused() -> None:
    task = _task(tiny_resnet(seed=0))
    with pytest.raises(BackboneMismatch, match=r"backbone with weights .*random, seed 0.* given backbone has .*seed 1"):
        build_network(tiny_resnet(seed=1), task)


def test_another_architecture_is_refused() -> None:
    with pytest.raises(BackboneMismatch, match=r"architecture timm/resnet18 .* given backbone has timm/vit_tiny"):
        build_network(tiny_vit(), _task(tiny_resnet()))


def test_another_number_of_classes_of_the_same_backbone_is_no_other_backbone() -> None:
    task = _task(tiny_resnet())
    with torch.no_grad():
        other = tiny_resnet()
        other.network.get_submodule("fc").weight.zero_()
    assert build_network(other, task)(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_missing_and_extra_tensors_are_named() -> None:
    backbone = tiny_resnet()
    task = _task(backbone)
    tensors = dict(task.tensors)
    del tensors["layer2.0.conv1.weight"]
    tensors["layer9.weight"] = torch.zeros(1)
    tensors["fc.bias"] = torch.zeros(3)
    expected = r"1 missing \(layer2\.0\.conv1\.weight\), 1 not in the network \(layer9\.weight\), 1 of another shape \(fc\.bias\)"
    with pytest.raises(WrongTensors, match=expected):
        build_network(backbone, replace(task, tensors=tensors))


def test_a_subset_that_is_not_in_the_network_is_refused() -> None:
    backbone = tiny_resnet()
    with pytest.raises(UnknownBlock, match=r"layer7\.0"):
        build_network(backbone, replace(_task(backbone), subset=("layer7.0",)))


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_truncated_files_are_refused_in_one_sentence(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "task.safetensors"
    save_task(_task(tiny_resnet()), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(BadCheckpoint, match="truncated") as caught:
        load_task(path)
    assert "\n" not in str(caught.value)
    assert read_kind(path) is None


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(BadCheckpoint, match="not a task checkpoint"):
        load_task(path)
    assert read_kind(path) is None
    with pytest.raises(BadCheckpoint, match="no such file"):
        load_task(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("text", ["", "{}", "[]", json.dumps({"backbone": {}})])
def test_a_damaged_description_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "damaged.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"format": "espalier-task/1", "task": text})
    with pytest.raises(BadCheckpoint, match="damaged"):
        load_task(path)


def test_kinds_are_told_by_header(tmp_path: Path) -> None:
    backbone = tiny_resnet()
    save_task(_task(backbone), tmp_path / "task.safetensors")
    save_backbone(backbone, tmp_path / "backbone.safetensors")
    assert read_kind(tmp_path / "task.safetensors") == "task"
    assert read_kind(tmp_path / "backbone.safetensors") == "backbone"
    assert read_kind(tmp_path / "absent") is None
    assert read_kind(tmp_path) is None


def test_a_file_that_is_there_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "task.safetensors"
    save_task(_task(tiny_resnet()), path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("tuning.network.files.save_file", fail)
    with pytest.raises(CannotWrite, match="disk full"):
        save_task(_task(tiny_resnet()), path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="does not exist"):
        save_task(_task(tiny_resnet()), tmp_path / "none" / "task.safetensors")
