"""Spans of a text, each with a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from contract.dtypes import Array
from contract.kinds.tokens import Tokens
from contract.repository.model import Task
from contract.text import EncodedText
from serving.answers.answer import About, TaskAnswer, label_of, softmax

_ENDS = ("E-", "L-", "S-", "U-")
_PREFIXES = ("B-", "I-", "E-", "L-", "S-", "U-")


class Span(BaseModel):
    """A part of the text."""

    label: str
    score: float | None = Field(description="The mean of its tokens' probabilities; null where they are not finite.")
    start: int = Field(description="Where it begins in the text, in characters.")
    end: int = Field(description="Where it ends: the first character behind it.")
    text: str


class TokensAnswer(TaskAnswer):
    """The spans, in the order of the text."""

    kind: Literal["tokens"] = "tokens"
    spans: list[Span]


@dataclass
class _Open:
    """A span that may go on."""

    label: str
    start: int
    end: int
    scores: list[float] = field(default_factory=list)
    is_ended: bool = False


def read_tokens(task: Task, kind: Tokens, values: Mapping[str, Array], about: About) -> list[TokensAnswer]:
    """Return the spans of each row's text: neighbours of one label, as far as prefixes do not part them.

    The only output, shape (n, T, C), has logits or their logarithms of probabilities; probabilities where `Task.scores` says so.
    """
    rows = values[task.outputs[0].name]
    return [
        TokensAnswer(version=task.version, spans=_spans(task, kind, row, text))
        for row, text in zip(rows, about.texts, strict=True)
    ]


def _spans(task: Task, kind: Tokens, row: Array, text: EncodedText) -> list[Span]:
    is_share = task.scores in ("probabilities", "independent")
    shares = row.astype(np.float64) if is_share else softmax(row, axis=-1)
    found: list[_Open] = []
    for place, best, share in zip(text.spans, shares.argmax(axis=1), shares.max(axis=1), strict=False):
        if place is None:
            continue
        word = label_of(task, int(best))
        if word == kind.outside:
            if found:
                found[-1].is_ended = True
            continue
        prefix, label = (word[:2], word[2:]) if word.startswith(_PREFIXES) else ("", word)
        if not (found and _goes_on(found[-1], prefix, label)):
            found.append(_Open(label, *place))
        found[-1].end, found[-1].is_ended = place[1], prefix in _ENDS
        found[-1].scores.append(float(share))
    return [
        Span(label=one.label, score=float(np.mean(one.scores)), start=one.start, end=one.end, text=text.text[one.start : one.end])
        for one in found
    ]


def _goes_on(span: _Open, prefix: str, label: str) -> bool:
    return span.label == label and not span.is_ended and prefix not in ("B-", "S-", "U-")
