"""Families of text encoders by Hugging Face's transformers, small and with random weights: mask and token types, several heads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.studies.coverage.sharing.family import FamilyTask, MakeFamily, TaskFamily, add_noise, own_weights

_LENGTH, _WIDTH, _WORDS, _LAYERS = 16, 64, 200, 6
_IDS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"


@dataclass(frozen=True)
class _Encoder:
    """An encoder of transformers: its configuration's class, what it says beside the sizes, and the path of each layer."""

    config: str
    layer: str = "encoder.layer.{}"
    types: bool = False
    options: Any = ()

    def make(self) -> nn.Module:
        """Return the encoder with random weights."""
        import transformers

        sizes = {
            "hidden_size": _WIDTH,
            "num_hidden_layers": _LAYERS,
            "num_attention_heads": 4,
            "intermediate_size": 2 * _WIDTH,
            "vocab_size": _WORDS,
            "max_position_embeddings": 4 * _LENGTH,
        }
        config = getattr(transformers, self.config)(**sizes, **dict(self.options))
        encoder: nn.Module = transformers.AutoModel.from_config(config, attn_implementation="eager")
        own_weights(encoder, seed=0)
        return encoder.eval().requires_grad_(False)


_ENCODERS = {
    "bert": _Encoder("BertConfig", types=True),
    "distilbert": _Encoder("DistilBertConfig", "transformer.layer.{}", options={"hidden_dim": 2 * _WIDTH}),
    "roberta": _Encoder("RobertaConfig"),
    "electra": _Encoder("ElectraConfig", types=True, options={"embedding_size": _WIDTH // 2}),
    "albert": _Encoder("AlbertConfig", "", types=True, options={"embedding_size": _WIDTH // 2}),
    "mpnet": _Encoder("MPNetConfig"),
    "deberta-v2": _Encoder(
        "DebertaV2Config",
        types=True,
        options={"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 2, "position_buckets": 8},
    ),
}


class _WithTypes(nn.Module):
    """An encoder with a head, which takes token types, too."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        found = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        answer: Tensor = self.head(found.last_hidden_state)
        return answer


class _WithoutTypes(nn.Module):
    """An encoder with a head."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        answer: Tensor = self.head(self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)
        return answer


class _FirstToken(nn.Module):
    """A pooler and a classifier on the first token, as BERT has them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.pooler, self.classifier = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.tanh(self.pooler(tokens[:, 0])))
        return logits


def text_families() -> dict[str, MakeFamily]:
    """Return what makes each family, by name."""
    return {name: partial(_make, name, encoder) for name, encoder in _ENCODERS.items()}


# Of each task: the head, and the layers that it tunes. ALBERT has one for all of its layers, so that tuning it leaves the embeddings.
_HEADS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "topic": (partial(_FirstToken, 5), ()),
    "mood": (partial(_FirstToken, 3), (_LAYERS - 2, _LAYERS - 1)),
    "spam": (partial(_FirstToken, 2), (_LAYERS // 2,)),
    "names": (partial(nn.Linear, _WIDTH, 9), ()),
    "grammar": (partial(nn.Linear, _WIDTH, 4), (_LAYERS - 1,)),
}


def _make(name: str, encoder: _Encoder) -> TaskFamily:
    torch.manual_seed(0)
    whole = encoder.make()
    tasks = {}
    for seed, (task, (head, layers)) in enumerate(_HEADS.items()):
        own = copy.deepcopy(whole)
        tuned = tuple(encoder.layer.format(layer) for layer in layers) if encoder.layer else _shared_layer(own, layers)
        add_noise(own, tuned, seed)
        network = (_WithTypes if encoder.types else _WithoutTypes)(own, head())
        own_weights(network.head, 100 + seed)
        tasks[task] = FamilyTask(network.eval().requires_grad_(False), type(network.head).__name__, tuned)
    return TaskFamily(name, f"{_LAYERS} layers of {_WIDTH}, {_LENGTH} tokens", tasks, _texts(types=encoder.types))


def _shared_layer(encoder: nn.Module, layers: tuple[int, ...]) -> tuple[str, ...]:
    """Return the path of the one layer that ALBERT runs again and again, where any is tuned."""
    return ("encoder.albert_layer_groups",) if layers else ()


def _texts(*, types: bool) -> dict[str, Tensor]:
    """Return two texts, one of them with padding and a second sentence."""
    ids = torch.randint(5, _WORDS, (2, _LENGTH), generator=torch.Generator().manual_seed(1))
    mask, second = torch.ones_like(ids), torch.zeros_like(ids)
    mask[1, _LENGTH // 2 :] = 0
    ids[1, _LENGTH // 2 :] = 1
    second[1, _LENGTH // 4 : _LENGTH // 2] = 1
    return {_IDS: ids, _MASK: mask} | ({_TYPES: second} if types else {})
