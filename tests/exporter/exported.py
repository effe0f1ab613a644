"""Tiny networks of seven families, as files of torch's old exporter, of its new one, and of the new one without its optimiser."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
import torch
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import Tensor, nn

OLD, NEW, PLAIN = "old", "new", "plain"  # dynamo=False; dynamo=True; dynamo=True, optimize=False
_WORDS, _LENGTH, _WIDTH, _HEADS = 20, 6, 16, 2


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(_WIDTH, _WIDTH) for _ in range(4))
        self.first, self.second = nn.LayerNorm(_WIDTH, 1e-12), nn.LayerNorm(_WIDTH, 1e-12)
        self.up, self.down = nn.Linear(_WIDTH, 2 * _WIDTH), nn.Linear(2 * _WIDTH, _WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (self._heads(part(x)) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / (_WIDTH // _HEADS) ** 0.5 + mask
        mixed = (scores.softmax(-1) @ value).permute(0, 2, 1, 3).contiguous().view(*x.shape)
        x = self.first(self.out(mixed) + x)
        return self.second(self.down(nn.functional.gelu(self.up(x))) + x)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], _HEADS, -1).transpose(1, 2)


class Bert(nn.Module):
    """Ids, token types and a mask, int64 (batch, 6) each -> (batch, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.types, self.places = (nn.Embedding(count, _WIDTH) for count in (_WORDS, 2, _LENGTH))
        self.norm = nn.LayerNorm(_WIDTH, 1e-12)
        self.layers = nn.ModuleList(_Layer() for _ in range(3))
        self.pool, self.head = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, 3)
        self.register_buffer("numbers", torch.arange(_LENGTH)[None])

    def forward(self, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        mask = (1.0 - mask[:, None, None, :].to(torch.float32)) * -1e4
        x = self.norm(self.words(ids) + self.types(types) + self.places(self.numbers[:, : ids.shape[1]]))
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(torch.tanh(self.pool(x[:, 0])))


def _vit() -> nn.Module:
    size = {"embed_dim": 16, "num_heads": 2, "depth": 2, "img_size": 32}
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **size)


def _swin() -> nn.Module:
    size = {"embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2), "window_size": 4, "img_size": 32}
    return timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, **size)


def _of_blocks(network: type[nn.Module], act_layer: type[nn.Module], pad_type: str) -> nn.Module:
    """Return a MobileNet or EfficientNet of two stages, the first with squeeze and excitation."""
    blocks = decode_arch_def([["ds_r1_k3_s2_e1_c8_se0.25"], ["ir_r2_k5_s2_e2_c16"]])
    options = {"norm_layer": partial(nn.BatchNorm2d, eps=1e-3), "act_layer": act_layer, "pad_type": pad_type}
    return network(blocks, num_classes=3, stem_size=8, num_features=16, **options)


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: timm.create_model("resnet18", num_classes=3, channels=(8, 8, 16, 16), layers=(1, 1, 1, 1)),
    "mobilenet": lambda: _of_blocks(MobileNetV3, nn.Hardswish, ""),
    "efficientnet": lambda: _of_blocks(EfficientNet, nn.SiLU, "same"),
    "convnext": lambda: timm.create_model("convnext_atto", num_classes=3, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)),
    "vit": _vit,
    "swin": _swin,
    "bert": Bert,
}
WITHOUT_BATCHNORM = ("convnext", "vit", "swin", "bert")


def network(family: str, *, tuned: bool = False) -> nn.Module:
    """Return the network in eval mode; BatchNorms have seen something. tuned: the last sixth of its weights are others."""
    torch.manual_seed(1)
    made = FAMILIES[family]().eval()
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
            elif name.endswith("running_mean"):
                tensor.copy_(torch.randn_like(tensor) / 10)
            elif name.endswith("bias"):  # nothing is zero that was trained
                tensor.add_(torch.randn_like(tensor) / 10)
        weights = [*made.parameters()]
        for weight in weights[-len(weights) // 6 :] if tuned else ():
            weight.add_(torch.randn_like(weight) / 50)
    return made


def export(made: nn.Module, how: str, path: Path, length: str = "") -> Path:
    """Write `made` to `path` with a free batch size, in opset 18. length: a Bert's second axis, where that is free, too."""
    names, example = _inputs(made, length)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    common = {"opset_version": 18, "input_names": names, "output_names": ["logits"], "dynamo": how != OLD, "verbose": False}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if how == OLD:
            axes = {name: {0: "batch", **({1: length} if length else {})} for name in names} | {"logits": {0: "batch"}}
            torch.onnx.export(copy.deepcopy(made), example, path, dynamic_axes=axes, **common)
        else:
            free = {1: torch.export.Dim(length, max=_LENGTH)} if length else {}
            shapes = tuple({0: torch.export.Dim("batch"), **free} for _ in names)
            torch.onnx.export(made, example, path, dynamic_shapes=shapes, optimize=how == NEW, external_data=False, **common)
    return path


@cache
def _written(family: str, tuned: bool, how: str) -> Mapping[str, bytes]:
    """Return the file by how it was made; those of the new exporter come of one trace, which is optimised last, as torch does it."""
    made = network(family, tuned=tuned)
    if how == OLD:
        with TemporaryDirectory() as folder:
            return {OLD: export(made, OLD, Path(folder) / "old.onnx").read_bytes()}
    names, example = _inputs(made)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        shapes = tuple({0: torch.export.Dim("batch")} for _ in names)
        common = {"opset_version": 18, "input_names": names, "output_names": ["logits"], "dynamo": True, "verbose": False}
        program = torch.onnx.export(made, example, dynamic_shapes=shapes, optimize=False, **common)
        assert program is not None
        plain = program.model_proto.SerializeToString()
        program.optimize()
    return {PLAIN: plain, NEW: program.model_proto.SerializeToString()}


def write(family: str, how: str, path: Path, *, tuned: bool = False) -> Path:
    """Write the network of `family` to `path` as `export` does, with each trace made once."""
    path.write_bytes(_written(family, tuned, OLD if how == OLD else NEW)[how])
    return path


def _inputs(made: nn.Module, length: str = "") -> tuple[list[str], tuple[Tensor, ...]]:
    if isinstance(made, Bert):
        ids, types, mask = (torch.randint(0, count, (2, _LENGTH - 1 if length else _LENGTH)) for count in (_WORDS, 2, 2))
        return ["ids", "types", "mask"], (ids, types, mask)
    return ["image"], (torch.randn(2, 3, 32, 32),)
