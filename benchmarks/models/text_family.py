"""Classifiers on one BERT-like encoder, each with late layers of its own, with random weights: fine for time and memory."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.models.blocks import BlockFamily, BlockNetwork

_IDS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"
_MASKED = -1e4  # added to the score of what is padding


@dataclass(frozen=True)
class TextSize:
    """An encoder; the default has the sizes of MiniLM-L12-H384: 33 million weights. tuned: layers of its own, of each task."""

    layers: int = 12
    width: int = 384
    heads: int = 12
    words: int = 30522
    most: int = 512
    tuned: int = 2
    tasks: int = 6
    classes: int = 5


def text_family(size: TextSize, length: int) -> BlockFamily:
    """Return classifiers of texts of any length, each with its last `size.tuned` layers and a head of its own. length: of its inputs."""
    torch.manual_seed(0)
    blocks: list[nn.Module] = [_Embeddings(size), *(_Layer(size) for _ in range(size.layers))]
    frozen = blocks[: len(blocks) - size.tuned]
    networks = {}
    for number in range(size.tasks):
        own = [_tuned(block) for block in blocks[len(frozen) :]]
        networks[f"texts-{number}"] = (
            BlockNetwork([*frozen, *own], [len(blocks) - 1], _FirstToken(size)).eval().requires_grad_(False)
        )
    free = {name: {1: "length"} for name in (_IDS, _MASK, _TYPES)}
    return BlockFamily(networks, dict.fromkeys(networks, "texts"), texts(size, length), free)


def texts(size: TextSize, length: int) -> dict[str, Tensor]:
    """Return one text of `length` tokens, the last quarter of which is padding."""
    ids = torch.randint(0, size.words, (1, length), generator=torch.Generator().manual_seed(1))
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    mask[:, length - length // 4 :] = 0
    types[:, length // 2 :] = 1
    return {_IDS: ids, _MASK: mask, _TYPES: types}


class _Embeddings(nn.Module):
    def __init__(self, size: TextSize) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(size.words, size.width), nn.Embedding(size.most, size.width)
        self.types, self.norm = nn.Embedding(2, size.width), nn.LayerNorm(size.width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        places = self.places.weight[: input_ids.shape[1]]
        tokens = self.norm(self.words(input_ids) + self.types(token_type_ids) + places)
        return tokens, (1 - attention_mask[:, None, None, :].to(tokens.dtype)) * _MASKED


class _Layer(nn.Module):
    """Attention and two products, each with a normalisation behind it, as in BERT."""

    def __init__(self, size: TextSize) -> None:
        super().__init__()
        width = size.width
        self.heads = size.heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, tokens: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = (self._split(layer(tokens)) for layer in (self.query, self.key, self.value))
        scores = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias, -1)
        tokens = self.norm1(tokens + self.out((scores @ value).transpose(1, 2).flatten(2)))
        return self.norm2(tokens + self.narrow(functional.gelu(self.wide(tokens)))), bias

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class _FirstToken(nn.Module):
    def __init__(self, size: TextSize) -> None:
        super().__init__()
        self.pool, self.last = nn.Linear(size.width, size.width), nn.Linear(size.width, size.classes)

    def forward(self, tokens: Tensor) -> Tensor:
        answer: Tensor = self.last(torch.tanh(self.pool(tokens[:, 0])))
        return answer


def _tuned(block: nn.Module) -> nn.Module:
    own = copy.deepcopy(block)
    with torch.no_grad():
        for value in own.parameters():
            value.add_(0.01 * torch.randn_like(value))
    return own
