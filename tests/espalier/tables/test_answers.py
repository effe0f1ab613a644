"""Answers of every kind as rows for the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from espalier.tables.answers import answer_rows

ANSWERS: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "classes": (
        {"labels": [{"label": "cat", "score": 0.25}, {"label": "b", "score": None}]},
        [("cat", "0.250"), ("b", "not finite")],
    ),
    "labels": ({"labels": []}, [("nothing", "")]),
    "values": (
        {"values": [{"name": "age", "value": 31.25, "unit": "years"}, {"name": "x", "value": None, "unit": ""}]},
        [("age", "31.25 years"), ("x", "not finite")],
    ),
    "embedding": ({"size": 7, "vector": [0.5, 1, 2, 3, 4, 5, 6]}, [("7 numbers", "0.5, 1, 2, 3, 4, 5, ...")]),
    "mask": (
        {"width": 10, "height": 10, "areas": [{"label": "road", "share": 0.5}], "unknown_pixels": 25},
        [("road", "50.0 % of what was seen"), ("(cut off)", "25.0 % of the picture")],
    ),
    "boxes": ({"boxes": [{"label": "car", "score": 0.9, "box": [1.2, 2.0, 30.6, 40.0]}]}, [("car at 1, 2, 31, 40", "0.900")]),
    "tokens": ({"spans": [{"label": "place", "text": "Rome", "score": 0.875}]}, [("place: Rome", "0.875")]),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_each_kind_has_rows(kind: str) -> None:
    answer, rows = ANSWERS[kind]
    assert answer_rows({"kind": kind, **answer}) == rows


def test_what_is_shown_beside_an_answer_has_rows_of_its_own() -> None:
    beside = {"logits": [1.5, None], "scores": [0.25] * 7, "preprocessing": {"height": 8, "mean": [0.5, 0.5, 0.5]}}
    assert answer_rows({"kind": "labels", "labels": [], **beside}) == [
        ("nothing", ""),
        ("logits", "1.5, not finite"),
        ("scores", "0.25, 0.25, 0.25, 0.25, 0.25, 0.25, ..."),
        ("preprocessing: height", "8"),
        ("preprocessing: mean", "[0.5, 0.5, 0.5]"),
    ]


def test_a_vector_in_base64_is_shown_by_its_beginning() -> None:
    assert answer_rows({"kind": "embedding", "size": 30, "vector": "A" * 160}) == [("30 numbers", f"{'A' * 40}...")]


def test_a_kind_without_rows_of_its_own_is_shown_as_it_is() -> None:
    answer = {"version": "1", "kind": "keypoints", "points": [{"label": "nose", "score": 0.95, "x": 19.7656, "y": 40.0}]}
    assert answer_rows(answer) == [("nose", "score 0.95, x 19.77, y 40")]


def test_a_kind_of_a_newer_server_is_named() -> None:
    assert answer_rows({"kind": "sound"}) == [("of the kind 'sound'; --json shows it", "")]
