"""Answers of a server's tasks for the terminal: what was found, and how sure, or how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_Rows = list[tuple[str, str]]
_NOTHING = [("nothing", "")]
_NUMBERS = 6  # of an embedding, logits, scores
_LETTERS = 40  # of one in base64


def answer_rows(answer: Mapping[str, Any]) -> _Rows:
    """Return a task's answer, as JSON has it, in rows of two words. What is of a kind without rows of its own is shown as it is."""
    read = _ROWS.get(answer.get("kind", "classes"), _anything)
    return [*(read(answer) or _NOTHING), *_beside(answer)]


def _anything(answer: Mapping[str, Any]) -> _Rows:
    """Return a row for each thing in the lists of an answer: what its first word is, and its other fields."""
    things = [one for value in answer.values() if isinstance(value, list) for one in value if isinstance(one, dict) and one]
    rows = []
    for one in things:
        first, *others = one.items()
        rows.append((str(first[1]), ", ".join(f"{name} {_brief(value)}" for name, value in others)))
    return rows or [(f"of the kind {answer['kind']!r}; --json shows it", "")]


def _brief(value: Any) -> str:
    return _number(value) if isinstance(value, float) else str(value)


def _beside(answer: Mapping[str, Any]) -> _Rows:
    """Return what was asked to be shown beside an answer."""
    rows = [(word, _numbers(answer[word])) for word in ("logits", "scores") if word in answer]
    how = answer.get("preprocessing", {})
    return [*rows, *((f"preprocessing: {name}", str(value)) for name, value in how.items())]


def _labels(answer: Mapping[str, Any]) -> _Rows:
    return [(str(one["label"]), _score(one["score"])) for one in answer["labels"]]


def _values(answer: Mapping[str, Any]) -> _Rows:
    return [(one["name"], f"{_number(one['value'])} {one['unit']}".rstrip()) for one in answer["values"]]


def _embedding(answer: Mapping[str, Any]) -> _Rows:
    vector = answer["vector"]
    shown = f"{vector[:_LETTERS]}..." if isinstance(vector, str) else _numbers(vector)
    return [(f"{answer['size']} numbers", shown)]


def _numbers(values: Sequence[float | None]) -> str:
    first = ", ".join(map(_number, values[:_NUMBERS]))
    return f"{first}, ..." if len(values) > _NUMBERS else first


def _mask(answer: Mapping[str, Any]) -> _Rows:
    rows = [(area["label"], f"{100 * area['share']:.1f} % of what was seen") for area in answer["areas"]]
    cut_off = answer["unknown_pixels"] / max(1, answer["width"] * answer["height"])
    return [*rows, *([("(cut off)", f"{100 * cut_off:.1f} % of the picture")] if cut_off else [])]


def _boxes(answer: Mapping[str, Any]) -> _Rows:
    return [
        (f"{one['label']} at {', '.join(f'{edge:.0f}' for edge in one['box'])}", _score(one["score"])) for one in answer["boxes"]
    ]


def _tokens(answer: Mapping[str, Any]) -> _Rows:
    return [(f"{span['label']}: {span['text']}", _score(span["score"])) for span in answer["spans"]]


def _score(score: float | None) -> str:
    return "not finite" if score is None else f"{score:.3f}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


_ROWS: Mapping[str, Callable[[Mapping[str, Any]], _Rows]] = {
    "classes": _labels,
    "labels": _labels,
    "values": _values,
    "embedding": _embedding,
    "mask": _mask,
    "boxes": _boxes,
    "tokens": _tokens,
}
