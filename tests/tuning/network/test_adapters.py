"""LoRA adapters in folders as PEFT writes them: the merged network gives what the network with the adapter beside its layers gives."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from tests.nets import tiny_resnet
from tuning.errors import BadCheckpoint
from tuning.network.adapters import read_adapter
from tuning.network.backbone import load_backbone

PEFT_ATTENTION = Path(__file__).parents[2] / "golden" / "peft_attention"
# As PEFT 0.21.2 writes it, but for what a test is about (huggingface.co/docs/peft/developer_guides/checkpoint).
CONFIG = {
    "alpha_pattern": {},
    "auto_mapping": {"base_model_class": "Net", "parent_library": "nets"},
    "base_model_name_or_path": None,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "loftq_config": {},
    "lora_alpha": 6,
    "lora_bias": False,
    "lora_dropout": 0.1,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "r": 2,
    "rank_pattern": {},
    "target_modules": ["conv", "fc"],
    "target_parameters": None,
    "task_type": None,
    "use_dora": False,
    "use_rslora": False,
}


class Conv1D(nn.Module):
    """As transformers has it: a Linear whose weight has the inputs first."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2)
        self.point = nn.Conv2d(4, 4, 1)
        self.deep = nn.Conv2d(4, 4, 3, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.ModuleDict({"fc": nn.Linear(4, 5)})
        self.turned = Conv1D()
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(self.deep(self.point(self.conv(x)).relu())).mean((2, 3))
        return self.fc(self.turned(self.inner["fc"](features).relu()))


IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def factors(network: nn.Module, ranks: Mapping[str, int]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A and B as PEFT shapes them, by layer."""
    generator = torch.Generator().manual_seed(2)
    made = {}
    for layer, rank in ranks.items():
        weight = network.get_submodule(layer).weight
        assert isinstance(weight, Tensor)
        outputs, *inputs = weight.shape
        made[layer] = (
            torch.randn((rank, *inputs), generator=generator),
            torch.randn((outputs, rank, *[1] * (weight.ndim - 2)), generator=generator),
        )
    return made


def write(
    folder: Path, pairs: Mapping[str, tuple[Tensor, Tensor]], more: Mapping[str, Tensor] | None = None, **settings: Any
) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **settings}))
    tensors = {
        f"{layer}.lora_{side}.weight": tensor for layer, pair in pairs.items() for side, tensor in zip("AB", pair, strict=True)
    }
    save_file(
        {f"base_model.model.{name}": t for name, t in {**tensors, **(more or {})}.items()}, folder / "adapter_model.safetensors"
    )
    return folder


def beside(layer: nn.Module, pair: tuple[Tensor, Tensor], scale: float) -> None:
    """Let `layer` add what an adapter computes beside it."""
    down, up = pair

    def add(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        if isinstance(module, nn.Conv2d):
            inner = functional.conv2d(inputs[0], down, None, module.stride, module.padding, module.dilation)
            return output + scale * functional.conv2d(inner, up)
        return output + scale * functional.linear(functional.linear(inputs[0], down), up)

    layer.register_forward_hook(add)


@torch.inference_mode()
def answers(network: nn.Module, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
    network = copy.deepcopy(network).eval()
    if tensors is not None:
        network.load_state_dict(dict(tensors))
    answer = network(IMAGES)
    assert isinstance(answer, Tensor)
    return answer


@pytest.mark.parametrize(
    ("settings", "ranks", "scales"),
    [
        ({}, {"conv": 2, "point": 2, "inner.fc": 2, "fc": 2}, dict.fromkeys(("conv", "point", "inner.fc", "fc"), 3.0)),
        ({"use_rslora": True}, {"conv": 2, "fc": 2}, dict.fromkeys(("conv", "fc"), 6 / sqrt(2))),
        (
            {"rank_pattern": {"inner.fc": 3}, "alpha_pattern": {"fc": 5}},
            {"conv": 2, "inner.fc": 3},
            {"conv": 3.0, "inner.fc": 5 / 3},
        ),
        ({"rank_pattern": {"^fc": 1, r"i\w+\.fc": 4}}, {"inner.fc": 4, "fc": 1}, {"inner.fc": 1.5, "fc": 6.0}),
        ({"fan_in_fan_out": True}, {"turned": 2, "fc": 2}, {"turned": 3.0, "fc": 3.0}),  # of Conv1D alone, as in PEFT
    ],
)
def test_a_merged_network_gives_what_the_adapter_gives_beside_it(
    tmp_path: Path, settings: dict[str, Any], ranks: dict[str, int], scales: dict[str, float]
) -> None:
    network = Net()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    pairs = factors(network, ranks)
    adapted = copy.deepcopy(network)
    for layer, scale in scales.items():
        beside(adapted.get_submodule(layer), pairs[layer], scale)
    found = read_adapter(write(tmp_path / "pets", pairs, **settings), network)
    expected = answers(adapted)
    torch.testing.assert_close(answers(network, found.tensors), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(answers(network), expected, atol=1e-2)
    changed = [name for name, tensor in found.tensors.items() if not torch.equal(tensor, before[name])]
    assert sorted(changed) == sorted(f"{layer}.weight" for layer in ranks)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_modules_that_were_saved_whole_take_the_place_of_the_networks(tmp_path: Path) -> None:
    network = Net()
    more = {name: tensor + 1 for name, tensor in network.norm.state_dict(prefix="norm.").items()}
    more |= {
        "inner.fc.weight": torch.ones(5, 4),
        "inner.fc.bias": torch.ones(5),
        "fc.weight": torch.ones(7, 5),
        "fc.bias": torch.ones(7),
    }
    folder = write(tmp_path / "pets", factors(network, {"conv": 2}), more, modules_to_save=["norm", "fc"])
    found = read_adapter(folder, network).tensors
    assert all(torch.equal(found[name], tensor) for name, tensor in more.items())


class Attention(nn.Module):
    """As the adapter in tests/golden/peft_attention was made on, by PEFT 0.21.2: r=2, lora_alpha=6, begun at random."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.fc(self.attn(x, x, x)[0])
        return answer


def golden_attention() -> tuple[Attention, dict[str, Tensor]]:
    expected = load_file(PEFT_ATTENTION / "expected.safetensors")
    network = Attention()
    network.load_state_dict({name.removeprefix("base."): tensor for name, tensor in expected.items() if name.startswith("base.")})
    return network, expected


@torch.inference_mode()
def test_torchs_own_attention_is_merged_as_peft_merges_it() -> None:
    network, expected = golden_attention()
    state = read_adapter(PEFT_ATTENTION, network)
    for name, tensor in state.tensors.items():
        torch.testing.assert_close(tensor, expected[f"merged.{name}"])
    network.load_state_dict(state.tensors)
    torch.testing.assert_close(network(expected["image"]), expected["answer"])
    assert "LoRA is merged into 2 layers (attn.out_proj, attn), its output's twice, as PEFT does." in state.remark


def test_an_attention_that_a_later_peft_may_merge_otherwise_is_refused(tmp_path: Path) -> None:
    network, _ = golden_attention()
    pair = torch.ones(2, 8), torch.ones(24, 2)
    with pytest.raises(BadCheckpoint, match=r"by PEFT 0\.22; how that merges one is known up to 0\.21 alone"):
        read_adapter(write(tmp_path / "later", {"attn": pair}, peft_version="0.22.0"), network)


def test_parts_of_an_attention_that_peft_does_not_run_are_refused(tmp_path: Path) -> None:
    network, _ = golden_attention()
    pair = torch.ones(2, 8), torch.ones(8, 2)
    with pytest.raises(BadCheckpoint, match=r"it updates 'attn\.out_proj' alone, which PEFT leaves out"):
        read_adapter(write(tmp_path / "alone", {"attn.out_proj": pair}), network)
    other = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2, kdim=4)})
    with pytest.raises(BadCheckpoint, match="it updates 'attn', a MultiheadAttention with keys or values of another width"):
        read_adapter(write(tmp_path / "other", {"attn": pair}), other)


def test_what_is_merged_and_what_stays_is_said(tmp_path: Path) -> None:
    network = tiny_resnet().network
    head = {"fc.weight": torch.ones(3, 16), "fc.bias": torch.ones(3)}
    pairs = factors(network, {"layer4.1.conv1": 2, "layer4.1.conv2": 2})
    found = read_adapter(write(tmp_path / "pets", pairs, head, modules_to_save=["fc"], base_model_name_or_path="a/b"), network)
    assert found.remark == (
        "pets: LoRA is merged into 2 layers (layer4.1.conv1, layer4.1.conv2), and fc replaced. Of the network's 8 blocks this changes 1 "
        "(layer4.1). What is as it was is shared where its input is the same. Nobody can check that the adapter was made on 'a/b'."
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "IA3"}, "it is an adapter of the method IA3, and LoRA alone is merged here; merge it where it was made"),
        ({"use_dora": True}, "it is DoRA, which is not merged here; merge it where it was made"),
        ({"bias": "all"}, "a LoRA adapter with bias='all', which is not merged here"),
        ({"bias": "lora_only"}, "with bias='lora_only'"),
        ({"lora_bias": True}, "a LoRA adapter with lora_bias, which"),
        ({"layer_replication": [[0, 1]]}, "with layer_replication"),
        ({"something_new": {"a": 1}}, "with something_new"),
        ({"init_lora_weights": "pissa"}, "begun with init_lora_weights='pissa', which changes the network's own weights"),
        ({"r": 4}, r"lora_A \(2, 3, 3, 3\) and lora_B \(4, 2, 1, 1\) of 'conv' do not fit its weight \(4, 3, 3, 3\) by rank 4"),
        ({"r": 0}, "do not fit its weight"),
        ({"r": "many"}, r"its adapter_config\.json cannot be read"),
        ({"rank_pattern": {"(": 1}}, r"its adapter_config\.json cannot be read"),
        ({"modules_to_save": ["norm"]}, r"it lacks 'norm\.weight', which is in one of modules_to_save"),
    ],
)
def test_what_is_not_merged_is_refused_by_name(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    network = Net()
    with pytest.raises(BadCheckpoint, match=words):
        read_adapter(write(tmp_path / "pets", factors(network, {"conv": 2}), **settings), network)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"fc.bias": torch.ones(3)}, r"holds 'fc\.bias', which is no update of a layer's weight nor in modules_to_save"),
        ({"emb.lora_embedding_A": torch.ones(3)}, r"holds 'emb\.lora_embedding_A', which is no update"),
        ({"fc.lora_A.weight": torch.ones(2, 5)}, "it lacks one of lora_A and lora_B of 'fc'"),
        (
            {"no.lora_A.weight": torch.ones(2, 5), "no.lora_B.weight": torch.ones(5, 2)},
            "updates 'no', which the network does not have",
        ),
        (
            {"deep.lora_A.weight": torch.ones(2, 1), "deep.lora_B.weight": torch.ones(4, 2)},
            "updates 'deep', a grouped Conv2d; Linear",
        ),
        (
            {"norm.lora_A.weight": torch.ones(2, 1), "norm.lora_B.weight": torch.ones(4, 2)},
            "updates 'norm', a BatchNorm2d; Linear",
        ),
    ],
)
def test_tensors_that_cannot_be_merged_are_named(tmp_path: Path, more: dict[str, Tensor], words: str) -> None:
    network = Net()
    with pytest.raises(BadCheckpoint, match=words):
        read_adapter(write(tmp_path / "pets", factors(network, {"conv": 2}), more), network)


def test_a_weight_that_two_layers_share_is_not_changed_for_both(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    with pytest.raises(BadCheckpoint, match=r"it updates '0\.weight', which is '1\.weight', too"):
        read_adapter(write(tmp_path / "pets", factors(network, {"0": 2})), network)


def test_a_folder_without_its_tensors(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets", factors(Net(), {"conv": 2}))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(
        BadCheckpoint, match=r"holds adapter_config\.json, but no adapter_model\.safetensors and no adapter_model\.bin"
    ):
        read_adapter(folder, Net())


def test_tensors_as_torch_saves_them(tmp_path: Path) -> None:
    network, pairs = Net(), factors(Net(), {"conv": 2})
    expected = read_adapter(write(tmp_path / "pets", pairs), network).tensors["conv.weight"]
    folder = tmp_path / "pets"
    (folder / "adapter_model.safetensors").unlink()
    torch.save(
        {f"base_model.model.conv.lora_{side}.weight": t for side, t in zip("AB", pairs["conv"], strict=True)},
        folder / "adapter_model.bin",
    )
    assert torch.equal(read_adapter(folder, network).tensors["conv.weight"], expected)


def test_an_adapter_is_no_backbone(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets", factors(Net(), {"conv": 2}))
    with pytest.raises(BadCheckpoint, match="it is an adapter, which is a task on a network's weights"):
        load_backbone(f"resnet18@{folder}")
