from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from tests.nets import tiny_data, tiny_resnet, tiny_vit
from tuning.errors import BadOptions, UnsupportedNetwork
from tuning.network.backbone import Backbone
from tuning.network.blocks import is_under
from tuning.network.checkpoint import build_network
from tuning.network.low_rank import LowRank, adaptable_layers, merge_layers, wrap_layers
from tuning.training.fit import make_checkpoint
from tuning.training.loop import FitOptions
from tuning.training.methods import lora
from tuning.training.trainer import Trainer, own_tensors

SHORT = FitOptions(epochs=2, batch_size=8, lr=1e-2, device="cpu")

LAYERS = {
    "linear": (nn.Linear(6, 5), (3, 6)),
    "linear of sequences": (nn.Linear(6, 5, bias=False), (3, 7, 6)),
    "1x1": (nn.Conv2d(4, 5, 1), (2, 4, 6, 6)),
    "3x3": (nn.Conv2d(4, 5, 3, stride=2, padding=1), (2, 4, 7, 7)),
    "odd": (nn.Conv2d(4, 5, (3, 1), stride=(1, 2), padding=(2, 0), dilation=(2, 1), bias=False), (2, 4, 9, 8)),
    "same": (nn.Conv2d(4, 5, 3, padding="same"), (2, 4, 6, 6)),
    "reflect": (nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"), (2, 4, 6, 6)),
}


def _random(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", LAYERS)
@torch.no_grad()
def test_it_starts_as_the_base_and_is_merged_into_one_layer_of_its_shape(kind: str) -> None:
    base, shape = LAYERS[kind]
    image, before = _random(shape), base.weight.clone()
    wrapped = LowRank(base, 2, torch.Generator().manual_seed(1))
    assert torch.equal(wrapped(image), base(image))
    wrapped.up.weight.copy_(_random(tuple(wrapped.up.weight.shape), 2))
    merged = wrapped.merged()
    assert type(merged) is type(base)
    assert not torch.allclose(merged(image), base(image), atol=1e-2)
    torch.testing.assert_close(merged(image), wrapped(image), rtol=1e-5, atol=1e-5)
    update = (merged.weight - base.weight).flatten(1)
    assert int(torch.linalg.matrix_rank(update, atol=1e-4)) <= 2
    assert torch.equal(base.weight, before), "merging has changed the base"


def test_the_update_depends_on_the_seed_alone() -> None:
    first, second, other = (nn.Sequential(nn.Linear(4, 4)) for _ in range(3))
    for network, seed in ((first, 1), (second, 1), (other, 2)):
        wrap_layers(network, ["0"], 2, seed)
    assert torch.equal(first[0].down.weight, second[0].down.weight)  # type: ignore[union-attr]
    assert not torch.equal(first[0].down.weight, other[0].down.weight)  # type: ignore[union-attr]


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(BadOptions, match="at least 1, not 0"):
        wrap_layers(nn.Sequential(nn.Linear(4, 4)), ["0"], 0, 0)


def test_attention_layers_are_adapted_or_else_the_blocks_convolutions() -> None:
    assert adaptable_layers(tiny_vit().network) == tuple(
        f"blocks.{i}.attn.{layer}" for i in range(3) for layer in ("qkv", "proj")
    )
    resnet = tiny_resnet()
    found = adaptable_layers(resnet.network)
    assert {"layer1.0.conv1", "layer2.0.downsample.0", "layer4.1.conv2"} <= set(found)
    assert "conv1" not in found
    assert all(is_under(path, resnet.blocks) for path in found)


def test_networks_whose_attention_is_closed_are_refused() -> None:
    with pytest.raises(UnsupportedNetwork, match="MultiheadAttention"):
        adaptable_layers(torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=3))


def test_convolutions_that_compute_otherwise_are_left_alone() -> None:
    """Grouped ones, and such as pad or standardise on their own: their weights cannot take a sum."""
    network = timm.create_model("tf_efficientnetv2_b0", num_classes=3)
    layers = [network.get_submodule(path) for path in adaptable_layers(network)]
    assert layers
    assert all(type(layer) is nn.Conv2d and layer.groups == 1 for layer in layers)


@torch.no_grad()
def test_a_network_that_takes_the_weight_without_calling_the_layer_is_adapted_too() -> None:
    network = timm.create_model(
        "beit_base_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=3
    )
    network.eval()
    image = _random((2, 3, 32, 32))
    expected = network(image)
    wrap_layers(network, adaptable_layers(network), 2, 0)
    assert torch.equal(network(image), expected)
    for module in network.modules():
        if isinstance(module, LowRank):
            module.up.weight.copy_(_random(tuple(module.up.weight.shape), 3))
    adapted = network(image)
    assert float((adapted - expected).abs().max()) > 0.01 * float(expected.abs().max())
    merge_layers(network)
    assert not any(isinstance(module, LowRank) for module in network.modules())
    torch.testing.assert_close(network(image), adapted, rtol=1e-3, atol=1e-3 * float(adapted.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [tiny_resnet(), tiny_vit()], ids=["resnet", "vit"])
def test_the_merged_task_computes_what_was_trained(backbone: Backbone) -> None:
    trainer = Trainer(backbone, tiny_data(), SHORT)
    prepared = trainer.prepare(lora(adaptable_layers(backbone.network), 2, 2))
    trained = trainer.run(prepared)
    before = trainer.logits(trained, "test")
    checkpoint = make_checkpoint(trainer, prepared, trained)
    rebuilt = build_network(backbone, checkpoint)
    with torch.no_grad():
        found = rebuilt(trainer._normalise(torch.from_numpy(trainer.data.test.images)))
    torch.testing.assert_close(found, before, rtol=1e-3, atol=1e-4)
    changed = {
        n
        for n, t in rebuilt.state_dict().items()
        if not is_under(n, backbone.head) and not torch.equal(t, backbone.network.state_dict()[n])
    }
    assert changed == {f"{path}.weight" for path in checkpoint.subset}
    assert checkpoint.provenance["lora_rank"] == 2
    # Taking the tensors has not disturbed what was trained, and they can be taken again.
    assert torch.equal(trainer.logits(trained, "test"), before)
    assert all(torch.equal(tensor, checkpoint.tensors[name]) for name, tensor in own_tensors(prepared, trained).items())


@pytest.mark.slow
def test_only_the_thin_layers_and_the_head_are_trained() -> None:
    trainer = Trainer(tiny_vit(), tiny_data(), SHORT)
    trained = trainer.run(trainer.prepare(lora(["blocks.1.attn.qkv"], 4, 2)))
    names = {name for name, parameter in trained.network.named_parameters() if parameter.requires_grad}
    assert names == {"blocks.1.attn.qkv.down.weight", "blocks.1.attn.qkv.up.weight", "head.weight", "head.bias"}
