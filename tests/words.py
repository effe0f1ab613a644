"""Tiny tokenizers, as the library `tokenizers` saves them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tokenizers", reason="texts need the extra `text`")

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = ("the", "cat", "dog", "sat", "ran", "far", "not")


def tokenizer(words: tuple[str, ...] = WORDS, special: tuple[str, ...] = SPECIAL) -> Tokenizer:
    """Return one that gives [CLS], an id for each of `words`, and [SEP]; what it does not know is [UNK]."""
    _, unknown, first, last = special
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate((*special, *words))}, unk_token=unknown))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, special.index(first)), (last, special.index(last))]
    )
    return made


def save(folder: Path, made: Tokenizer | None = None, name: str = "tokenizer.json") -> Path:
    """Write `made`, or the usual one, into `folder` and return the file."""
    file = folder / name
    (made or tokenizer()).save(str(file))
    return file
