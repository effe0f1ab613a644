from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from torch import Tensor, nn

from contract.preprocessing import Preprocessing
from tests.nets import tiny_data, tiny_preprocessing, tiny_resnet, tiny_vit
from tuning.data.labelled import Split, TaskData
from tuning.errors import BadData, UnsupportedNetwork
from tuning.network.backbone import Backbone
from tuning.network.normalise import Normalise
from tuning.transfer.features import compute_features, find_single_head, run_with_features


class _ConvolutionalHead(nn.Module):
    """Scores at every position, then their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.stem(image)).mean((2, 3))


def _images(count: int = 4, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("backbone", "dimensions"), [(tiny_resnet(), 16), (tiny_vit(), 32)])
def test_features_are_what_the_head_takes(backbone: Backbone, dimensions: int) -> None:
    network = backbone.network
    logits, features = run_with_features(network, backbone.head[0], _images())
    assert features.shape == (4, dimensions)
    assert torch.equal(logits, network(_images()))
    assert torch.equal(logits, network.get_submodule(backbone.head[0])(features))


def test_a_convolutional_heads_features_are_averaged_over_positions() -> None:
    network = _ConvolutionalHead()
    logits, features = run_with_features(network, "head", _images())
    assert features.shape == (4, 6)
    torch.testing.assert_close(features, network.stem(_images()).mean((2, 3)))
    torch.testing.assert_close(logits, features @ network.head.weight[:, :, 0, 0].T + network.head.bias)


def test_several_heads_are_refused() -> None:
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    network = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, **options)
    with pytest.raises(UnsupportedNetwork, match=r"the teacher 'big' has 2 \(head, head_dist\)\.$"):
        find_single_head(network, "the teacher 'big'")


def test_no_head_is_refused() -> None:
    with pytest.raises(UnsupportedNetwork, match="the student has none"):
        find_single_head(nn.Sequential(nn.ReLU()), "the student")


def test_a_head_on_other_than_one_vector_per_image_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(2), nn.Linear(64, 2))
    with pytest.raises(UnsupportedNetwork, match="'1' does not take one vector of features"):
        run_with_features(network, "1", _images(size=8))


def test_teachers_stay_as_they_are_bit_for_bit() -> None:
    teacher, data = tiny_resnet(), tiny_data()
    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    compute_features({"big": teacher}, lambda _: data, data)
    after = teacher.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert not teacher.network.training
    assert not any(module._forward_pre_hooks for module in teacher.network.modules())


@pytest.mark.parametrize("rows", [1, 5, 24])
def test_features_computed_once_equal_those_of_a_batch(rows: int) -> None:
    teacher, data = tiny_resnet(), tiny_data(train=24)
    once = compute_features({"big": teacher}, lambda _: data, data)["big"].rows
    chosen = torch.randperm(24, generator=torch.Generator().manual_seed(1))[:rows]
    images = Normalise(teacher.spec.preprocessing)(torch.from_numpy(data.train.images)[chosen])
    torch.testing.assert_close(once[chosen], run_with_features(teacher.network, "fc", images)[1])
    assert not once.requires_grad


def test_each_teacher_gets_the_images_as_it_wants_them() -> None:
    small = tiny_resnet(seed=1)
    small = Backbone(replace(small.spec, preprocessing=tiny_preprocessing(64)), small.network)
    asked: list[Preprocessing] = []

    def data_for(preprocessing: Preprocessing) -> TaskData:
        asked.append(preprocessing)
        return tiny_data(size=preprocessing.height)

    found = compute_features({"a": tiny_resnet(), "b": small, "c": tiny_vit()}, data_for, tiny_data())
    assert [preprocessing.height for preprocessing in asked] == [32, 64, 32]
    assert {name: tuple(one.rows.shape) for name, one in found.items()} == {"a": (24, 16), "b": (24, 16), "c": (24, 32)}
    assert found["b"].teacher == small.spec


@pytest.mark.parametrize("train", [24, 21])
def test_other_targets_are_refused(train: int) -> None:
    data, other = tiny_data(), tiny_data(train=train)
    other = replace(other, train=Split(other.train.images, other.train.targets[::-1].copy()))
    with pytest.raises(BadData, match=r"teacher 'big' have other labels or targets .* same images in the same order"):
        compute_features({"big": tiny_resnet()}, lambda _: other, data)


def test_other_labels_are_refused() -> None:
    data = tiny_data()
    with pytest.raises(BadData, match="other labels"):
        compute_features({"big": tiny_resnet()}, lambda _: replace(data, labels=("x", "y", "z")), data)
