from __future__ import annotations

import pytest
import timm
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.nets import tiny_resnet, tiny_vit
from tuning.errors import UnknownBlock
from tuning.network.blocks import find_head, is_under
from tuning.network.paths import attention_paths, find_paths, norm_paths

RESNET, VIT = tiny_resnet().network, tiny_vit().network


@pytest.mark.parametrize(
    ("network", "names", "expected"),
    [
        (RESNET, ["layer4.1", "layer1.0", "layer4.1"], ("layer1.0", "layer4.1")),
        (RESNET, ["layer2.1.conv2.weight"], ("layer2.1.conv2.weight",)),
        (RESNET, ["layer4"], ("layer4",)),
        (RESNET, ["layer4.1", "layer4.1.conv1"], ("layer4.1",)),  # nothing twice
        (RESNET, ["layer[34].0"], ("layer3.0", "layer4.0")),
        (RESNET, ["layer?.1.bn*"], tuple(f"layer{stage}.1.bn{number}" for stage in (1, 2, 3, 4) for number in (1, 2))),
        (RESNET, ["layer2.0:norm"], ("layer2.0.bn1", "layer2.0.bn2", "layer2.0.downsample.1")),
        (RESNET, ["layer?.1:norm", "conv1"], ("conv1", *(f"layer{s}.1.bn{n}" for s in (1, 2, 3, 4) for n in (1, 2)))),
        (VIT, ["cls_token", "pos_embed"], ("cls_token", "pos_embed")),
        (VIT, ["blocks.*.attn"], ("blocks.0.attn", "blocks.1.attn", "blocks.2.attn")),
        (VIT, ["attention"], ("blocks.0.attn", "blocks.1.attn", "blocks.2.attn")),
        (VIT, ["blocks.1:attention", "blocks.1:norm"], ("blocks.1.norm1", "blocks.1.attn", "blocks.1.norm2")),
        (VIT, ["norm"], ("norm",)),  # the ViT's own part of that name
    ],
)
def test_names_mean_these_paths(network: nn.Module, names: list[str], expected: tuple[str, ...]) -> None:
    assert find_paths(network, names) == expected


def test_norm_means_all_normalisation_layers() -> None:
    everywhere = {name for name, module in RESNET.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert set(find_paths(RESNET, ["norm"])) == everywhere == set(norm_paths(RESNET))
    everywhere = {name for name, module in VIT.named_modules() if isinstance(module, nn.LayerNorm)}
    assert set(find_paths(VIT, ["*:norm"])) == everywhere == set(norm_paths(VIT))


def test_attention_is_found_in_networks_of_torchvision() -> None:
    network = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=3)
    assert attention_paths(network) == tuple(f"encoder.layers.encoder_layer_{i}.self_attention" for i in range(2))


@pytest.mark.parametrize(
    "name", ["layer5.0", "layer5.*", "attention", "layer1.0:attention", "", "fc", "fc.weight", "layer9:norm"]
)
def test_unknown_names_list_the_known_blocks(name: str) -> None:
    with pytest.raises(UnknownBlock, match=r"layer1\.0, layer1\.1, .*layer4\.1"):
        find_paths(RESNET, [name])


def test_unknown_names_of_layers_list_what_is_near() -> None:
    with pytest.raises(UnknownBlock, match=r"'blocks\.1\.attn\.qvk'.*blocks\.1\.attn\.qkv"):
        find_paths(VIT, ["blocks.1.attn.qvk"])


@pytest.mark.slow
@settings(max_examples=30)
@given(st.data())
def test_paths_mean_themselves_in_order_and_none_twice(data: st.DataObject) -> None:
    network = data.draw(st.sampled_from([RESNET, VIT]))
    known = [name for name, _ in (*network.named_modules(), *network.named_parameters()) if name]
    known = [name for name in known if any(is_under(parameter, [name]) for parameter, _ in network.named_parameters())]
    names = data.draw(st.lists(st.sampled_from([name for name in known if not is_under(name, find_head(network))]), min_size=1))
    found = find_paths(network, names)
    assert find_paths(network, reversed(found)) == found
    assert set(found) <= set(names)
    assert all(is_under(name, found) for name in names)
    assert not any(is_under(path, set(found) - {path}) for path in found)


@pytest.mark.parametrize("name", ["convnext_atto", "mobilenetv3_small_050", "deit_tiny_distilled_patch16_224"])
def test_the_head_and_what_holds_it_are_never_meant(name: str) -> None:
    network = timm.create_model(name)
    found = find_paths(network, ["*"])
    head = find_head(network)
    assert head
    assert not any(is_under(path, head) or is_under(part, [path]) for path in found for part in head)
    rest = {n for n, _ in network.named_parameters() if not is_under(n, head)}
    assert {n for n in rest if is_under(n, found)} == rest
