from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.nets import tiny_data, tiny_resnet, tiny_vit
from tuning.errors import BadOptions, UnsupportedNetwork
from tuning.network.backbone import Backbone
from tuning.network.blocks import is_under
from tuning.network.checkpoint import build_network, load_task, save_task
from tuning.network.copying import copy_sharing
from tuning.network.siamese import Siamese, make_siamese
from tuning.training.fit import fit, make_checkpoint
from tuning.training.loop import FitOptions
from tuning.training.methods import subtuning
from tuning.training.trainer import Trainer

SHORT = FitOptions(epochs=2, batch_size=8, lr=1e-2, device="cpu")
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _siamese(backbone: Backbone, block: str) -> Siamese:
    return make_siamese(copy_sharing(backbone.network, (block, *backbone.head)), backbone.network, 3, 0, IMAGES[:1])


@pytest.mark.parametrize(("backbone", "block", "size"), [(tiny_resnet(), "layer3.0", 16), (tiny_vit(), "blocks.1", 32)])
def test_the_head_sees_both_features_and_no_gradient_reaches_the_frozen_half(backbone: Backbone, block: str, size: int) -> None:
    state = {name: t.clone() for name, t in backbone.network.state_dict().items()}
    network = _siamese(backbone, block)
    assert network.head.in_features == 2 * size
    network.tuned.get_submodule(block).requires_grad_(True)
    network.train()
    assert network.training
    assert not any(module.training for module in network.frozen.modules())
    seen: list[Tensor] = []
    network.head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    network(IMAGES).square().sum().backward()
    assert seen[0].shape == (4, 2 * size)
    assert torch.equal(seen[0][:, size:], network.frozen(IMAGES))
    with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert with_gradient == {n for n, _ in network.named_parameters() if is_under(n, (f"tuned.{block}", "head"))}
    assert all(parameter.grad is None for parameter in backbone.network.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.network.state_dict().items())


def test_both_halves_start_from_the_same_features() -> None:
    network = _siamese(tiny_vit(), "blocks.0").eval()
    with torch.no_grad():
        assert torch.equal(network.tuned(IMAGES), network.frozen(IMAGES))


def test_a_network_with_two_classifiers_is_refused() -> None:
    network = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, embed_dim=24, depth=1, num_heads=2)
    with pytest.raises(UnsupportedNetwork, match="one classifier, not 2"):
        make_siamese(network, network, 3, 0, IMAGES[:1])


class _Map(nn.Module):
    """Its classifier is a convolution, in front of the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.classifier = nn.Conv2d(4, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(self.stem(image)).mean((2, 3))  # type: ignore[no-any-return]


class _Convolution(_Map):
    """Here the pooling comes after the flattening of what is a map without the classifier."""

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(self.stem(image))  # type: ignore[no-any-return]


def test_features_that_are_no_vector_are_refused() -> None:
    with pytest.raises(UnsupportedNetwork, match=r"vector of features per image; this network has \(4, 30, 30\)"):
        make_siamese(_Convolution(), _Convolution(), 3, 0, IMAGES[:1])
    assert make_siamese(_Map().eval(), _Map().eval(), 3, 0, IMAGES[:1]).head.in_features == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "subset"), [(tiny_resnet(), ["layer3.0"]), (tiny_vit(), ["blocks.1.attn.qkv"])], ids=["resnet", "vit"]
)
def test_a_checkpoint_gives_the_same_logits_after_a_round_trip(backbone: Backbone, subset: list[str], tmp_path: Path) -> None:
    trainer = Trainer(backbone, tiny_data(), SHORT)
    prepared = trainer.prepare(subtuning(subset, 2, siamese=True))
    trained = trainer.run(prepared)
    save_task(make_checkpoint(trainer, prepared, trained), tmp_path / "task.safetensors")
    loaded = load_task(tmp_path / "task.safetensors")
    assert loaded.siamese
    assert all(is_under(name, [*(f"tuned.{path}" for path in subset), "head"]) for name in loaded.tensors)
    with torch.no_grad():
        found = build_network(backbone, loaded)(trainer._normalise(torch.from_numpy(trainer.data.test.images)))
    torch.testing.assert_close(found, trainer.logits(trained, "test"), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_training_moves_the_tuned_half_and_nothing_of_the_frozen_one() -> None:
    backbone = tiny_resnet()
    network = build_network(backbone, fit(backbone, tiny_data(), ["layer3.0"], SHORT, siamese=True))
    before = backbone.network.state_dict()
    for name, tensor in network.state_dict().items():
        half, _, inner = name.partition(".")
        if half != "head":
            assert torch.equal(tensor, before[inner]) != (half == "tuned" and is_under(inner, ["layer3.0"])), name


def test_all_weights_and_a_siamese_head_do_not_go_together() -> None:
    with pytest.raises(BadOptions, match="Siamese"):
        fit(tiny_vit(), tiny_data(), "all", SHORT, all_weights=True, siamese=True)
