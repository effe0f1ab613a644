"""Six small families of text encoders in torch, with three heads each, as files of torch's exporter of any batch size and length."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx
import onnx.utils
import torch
from onnx import numpy_helper
from torch import Tensor, nn

WORDS, PLACES, WIDTH, HEADS, PAD = 24, 14, 8, 2, 1
FAMILIES = ("bert", "prenorm", "roberta", "albert", "distilbert", "relative")


class _Layer(nn.Module):
    def __init__(self, family: str) -> None:
        super().__init__()
        self.family = family
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
        if self.family == "prenorm":
            x = x + self.attend(self.first(x), mask, bias)
            return x + self.feed(self.second(x))
        x = self.first(x + self.attend(x, mask, bias))
        return self.second(x + self.feed(x))

    def attend(self, x: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
        query, key, value = (part(x).view(*x.shape[:2], HEADS, -1).transpose(1, 2) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5
        scores = scores if bias is None else scores + bias
        if self.family == "distilbert":
            scores = scores.masked_fill((mask == 0).view(mask.shape[0], 1, 1, mask.shape[1]).expand_as(scores), -1e4)
        else:
            scores = scores + (1.0 - mask[:, None, None, :].float()) * -1e4
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).reshape(x.shape))

    def feed(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.gelu(self.up(x)))


class Encoder(nn.Module):
    """int64 (batch, length) ids, mask and, but for distilbert, types -> classes by the first token, by the mean, and of each token."""

    def __init__(self, family: str) -> None:
        super().__init__()
        self.family = family
        self.words, self.types = nn.Embedding(WORDS, WIDTH // 2 if family == "albert" else WIDTH), nn.Embedding(2, WIDTH)
        self.wider = nn.Linear(WIDTH // 2, WIDTH) if family == "albert" else nn.Identity()
        self.places, self.bias = nn.Embedding(PLACES + 2, WIDTH), nn.Embedding(9, HEADS)
        self.norm = nn.LayerNorm(WIDTH)
        self.layers = nn.ModuleList(_Layer(family) for _ in range(1 if family == "albert" else 2))
        self.pool, self.classes, self.mean, self.tokens = (nn.Linear(WIDTH, size) for size in (WIDTH, 3, 2, 5))
        self.register_buffer("numbers", torch.arange(PLACES)[None])

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.wider(self.words(ids))
        if self.family != "distilbert":
            x = x + self.types(types)
        if self.family == "roberta":
            counted = (ids != PAD).int()
            x = x + self.places(((torch.cumsum(counted, 1).type_as(counted)) * counted).long() + PAD)
        elif self.family != "relative":
            x = x + self.places(self.numbers[:, : ids.shape[1]])
        x, bias = self.norm(x), self._bias(ids.shape[1], ids.device) if self.family == "relative" else None
        for layer in [*self.layers] * (2 if self.family == "albert" else 1):
            x = layer(x, mask, bias)
        weights = mask[:, :, None].float()
        mean = (x * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return self.classes(torch.tanh(self.pool(x[:, 0]))), self.mean(mean), self.tokens(x)

    def _bias(self, length: int, device: torch.device) -> Tensor:
        places = torch.arange(length, device=device)
        return self.bias((places[None, :] - places[:, None]).clamp(-4, 4) + 4).permute(2, 0, 1)[None]


@cache
def _whole(family: str) -> onnx.ModelProto:
    torch.manual_seed(FAMILIES.index(family))
    made = Encoder(family).eval()
    names, outputs = ["input_ids", "attention_mask", "token_type_ids"], ["classes", "mean", "tokens"]
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in [*names, "tokens"]} | {
        name: {0: "batch_size"} for name in outputs[:2]
    }
    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        example = tuple(torch.randint(0, count, (2, 5)) for count in (WORDS, 2, 2))
        common = {"opset_version": 18, "input_names": names, "output_names": outputs, "dynamo": False}
        torch.onnx.export(copy.deepcopy(made), example, buffer, dynamic_axes=axes, **common)
    return onnx.load_from_string(buffer.getvalue())


def task(family: str, outputs: Sequence[str], tuned: Sequence[str] = (), seed: int = 0) -> onnx.ModelProto:
    """Return the network with these of its outputs; weights of nodes whose names have one of `tuned` in them are others."""
    model = onnx.ModelProto()
    model.CopyFrom(_whole(family))
    for value in [value for value in model.graph.output if value.name not in outputs]:
        model.graph.output.remove(value)
    random = np.random.default_rng(seed + 1)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    changed = {
        name for node in model.graph.node for name in node.input if name in weights and any(part in node.name for part in tuned)
    }
    for name in sorted(changed):
        array = numpy_helper.to_array(weights[name])
        if array.dtype == np.float32 and array.ndim:
            noise = random.standard_normal(array.shape).astype(np.float32) / 5
            weights[name].CopyFrom(numpy_helper.from_array(array + noise, name))
    return model
