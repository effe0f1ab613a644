from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.nets import tiny_data, tiny_preprocessing, tiny_resnet, tiny_vit
from tuning.errors import BadData, BadOptions, NonFiniteLoss, UnknownBlock
from tuning.network.backbone import Backbone
from tuning.network.blocks import is_under
from tuning.network.checkpoint import build_network
from tuning.training.fit import FitOptions, Subset, evaluate, find_subset, fit, pretrain

SHORT = FitOptions(epochs=2, batch_size=8, lr=1e-2)


def _states(backbone: Backbone, subset: Subset, options: FitOptions = SHORT) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the state before and after tuning."""
    before = {name: t.clone() for name, t in backbone.network.state_dict().items()}
    after = build_network(backbone, fit(backbone, tiny_data(), subset, options)).state_dict()
    assert all(torch.equal(t, backbone.network.state_dict()[name]) for name, t in before.items()), "the backbone has changed"
    return before, after


@pytest.mark.slow
@pytest.mark.parametrize("subset", [(), ("layer1.0",), ("layer2.1",), ("layer4.1",), ("layer1.1", "layer3.0")])
def test_frozen_is_bit_identical_and_tuned_has_changed(subset: tuple[str, ...]) -> None:
    before, after = _states(tiny_resnet(), subset)
    for name, tensor in before.items():
        if is_under(name, ("fc",)):
            continue
        assert torch.equal(tensor, after[name]) != is_under(name, subset), name


@pytest.mark.slow
def test_tuned_blocks_own_their_running_statistics() -> None:
    before, after = _states(tiny_resnet(), ["layer3.0"])
    moved = {name for name in before if "running_" in name and not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "running_" in name and name.startswith("layer3.0.")}
    assert moved


@pytest.mark.slow
def test_frozen_blocks_of_a_vit_are_bit_identical() -> None:
    before, after = _states(tiny_vit(), ["blocks.1"])
    changed = {name for name in before if not is_under(name, ("head",)) and not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("blocks.1.")}


@pytest.mark.slow
@pytest.mark.parametrize("subset", ["none", ("layer1.0",), ("layer2.1",), ("layer4.0",)])
def test_training_on_features_equals_training_on_images(subset: Subset) -> None:
    _, cached = _states(tiny_resnet(), subset)
    _, whole = _states(tiny_resnet(), subset, replace(SHORT, cache_bytes=0))
    for name, tensor in cached.items():
        torch.testing.assert_close(tensor, whole[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_provenance_says_whether_features_were_computed_once() -> None:
    backbone, data = tiny_resnet(), tiny_data()
    cached = fit(backbone, data, "none", SHORT)
    whole = fit(backbone, data, "none", replace(SHORT, cache_bytes=0))
    assert cached.provenance["features_computed_once"] is True
    assert whole.provenance["features_computed_once"] is False


@pytest.mark.slow
def test_same_seed_same_weights_whatever_torchs_global_seed() -> None:
    backbone, data = tiny_vit(), tiny_data()
    torch.manual_seed(1)
    first = fit(backbone, data, ["blocks.0"], SHORT)
    torch.manual_seed(2)
    second = fit(backbone, data, ["blocks.0"], SHORT)
    other = fit(backbone, data, ["blocks.0"], replace(SHORT, seed=1))
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())
    assert first.scores == second.scores
    assert not torch.equal(first.tensors["head.weight"], other.tensors["head.weight"])


@pytest.mark.slow
def test_scores_are_those_of_the_rebuilt_network() -> None:
    backbone, data = tiny_resnet(), tiny_data()
    checkpoint = fit(backbone, data, "all", replace(SHORT, epochs=6), all_weights=True)
    network = build_network(backbone, checkpoint)
    assert evaluate(network, data.test, backbone.spec.preprocessing) == checkpoint.scores["test_accuracy"]
    assert checkpoint.scores["train_accuracy"] > 0.6
    assert set(checkpoint.tensors) == set(network.state_dict())


@pytest.mark.slow
def test_full_finetuning_changes_the_stem_and_all_blocks_does_not() -> None:
    backbone, data = tiny_resnet(), tiny_data()
    full = build_network(backbone, fit(backbone, data, "all", SHORT, all_weights=True))
    blocks = build_network(backbone, fit(backbone, data, "all", SHORT))
    stem = backbone.network.state_dict()["conv1.weight"]
    assert not torch.equal(full.state_dict()["conv1.weight"], stem)
    assert torch.equal(blocks.state_dict()["conv1.weight"], stem)


@pytest.mark.slow
def test_progress_is_told_after_every_epoch() -> None:
    told: list[tuple[int, int]] = []
    fit(tiny_vit(), tiny_data(), "none", replace(SHORT, epochs=3), on_epoch=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.slow
def test_pretraining_learns_and_is_repeatable() -> None:
    data = tiny_data()
    options = FitOptions(epochs=8, batch_size=8, lr=3e-3)
    arguments = {"network_options": {"channels": [8, 8, 16, 16]}}
    first = pretrain("resnet18", data, tiny_preprocessing(), options, **arguments)
    second = pretrain("resnet18", data, tiny_preprocessing(), options, **arguments)
    assert first.spec == second.spec
    assert first.spec.num_classes == 3
    assert evaluate(first.network, data.train, tiny_preprocessing()) > 0.6


@pytest.mark.slow
def test_a_diverging_training_says_at_which_step() -> None:
    with pytest.raises(NonFiniteLoss, match=r"at step [0-9]+; try a learning rate below 1e\+30"):
        fit(tiny_resnet(), tiny_data(), "all", replace(SHORT, lr=1e30))


def test_unknown_block_lists_the_known() -> None:
    with pytest.raises(UnknownBlock, match=r"'layer5\.0'; this backbone's blocks are: layer1\.0, layer1\.1, .*layer4\.1"):
        fit(tiny_resnet(), tiny_data(), ["layer5.0"])


def test_subsets_are_put_into_forward_order_once() -> None:
    backbone = tiny_vit()
    assert find_subset(backbone, ["blocks.2", "blocks.0", "blocks.2"]) == ("blocks.0", "blocks.2")
    assert find_subset(backbone, "none") == ()
    assert find_subset(backbone, "all") == backbone.blocks
    assert find_subset(backbone, "blocks.1") == ("blocks.1",)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(BadData, match=r"\(16, 16\) pixels, but the backbone takes \(32, 32\)"):
        fit(tiny_resnet(), tiny_data(size=16), "none")


def test_all_weights_wants_all_blocks() -> None:
    with pytest.raises(BadOptions, match='subset "all"'):
        fit(tiny_resnet(), tiny_data(), ["layer1.0"], all_weights=True)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 1}, {"lr": 0.0}, {"weight_decay": -1.0}, {"seed": -1}])
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadOptions):
        FitOptions(**wrong)  # type: ignore[arg-type]
