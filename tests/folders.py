"""Tiny folders as transformers writes them, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="folders of transformers need the extra `transformers`")

import transformers

from tests import words

VOCABULARY, MOST = len(words.SPECIAL) + len(words.WORDS), 20
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": MOST,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}
_DISTIL = {
    "vocab_size": VOCABULARY,
    "dim": 8,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 16,
    "max_position_embeddings": MOST,
    "initializer_range": 0.5,
}
_CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Bert": (transformers.BertConfig, _SIZES),
    "Roberta": (transformers.RobertaConfig, {**_SIZES, "type_vocab_size": 1}),
    "DistilBert": (transformers.DistilBertConfig, _DISTIL),
    "GPT2": (
        transformers.GPT2Config,
        {
            "vocab_size": VOCABULARY,
            "n_embd": 8,
            "n_layer": 1,
            "n_head": 2,
            "n_positions": MOST,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
    ),
}


def network(kind: str, seed: int = 0, **changes: Any) -> Any:
    """Return a network of a class of transformers, such as "BertForSequenceClassification"."""
    family = next(name for name in _CONFIGS if kind.startswith(name))
    config, sizes = _CONFIGS[family]
    torch.manual_seed(seed)
    return getattr(transformers, kind)(config(**{**sizes, **changes})).eval()


def tuned(base: Any, kind: str, seed: int, layers: tuple[int, ...] = (), **changes: Any) -> Any:
    """Return a network with the encoder of `base`, a head of its own, and those `layers` tuned."""
    made = network(kind, seed, **changes)
    ours, theirs = (dict(one.base_model.named_parameters()) for one in (made, base))
    with torch.no_grad():
        for name, value in theirs.items():
            if name in ours and not any(f"layer.{layer}." in name for layer in layers) and not name.startswith("pooler"):
                ours[name].copy_(value)
    return made


def save(folder: Path, made: Any, tokenizer: words.Tokenizer | None = None) -> Path:
    """Write `made` and its tokenizer into `folder`, and return that."""
    made.save_pretrained(folder)
    words.save(folder, tokenizer)
    return folder
