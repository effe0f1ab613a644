"""Kinds of tasks: how they are written, and which networks can be of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.kinds import KINDS, Kind, KindDoesNotFit, assumed_kind, kind_from_json, kind_to_json, parse_kind
from contract.kinds.boxes import Boxes, BoxOutputs
from contract.kinds.classes import Classes
from contract.kinds.embedding import Embedding
from contract.kinds.labels import Labels
from contract.kinds.mask import Mask
from contract.kinds.tensor import Tensor
from contract.kinds.tokens import Tokens
from contract.kinds.values import Values

LAYOUTS = ("torchvision", "yolo", "yolov5", "detr", "rtdetr")
fractions = st.floats(0, 1)
kinds: st.SearchStrategy[Kind] = st.one_of(
    st.sampled_from([Classes(), Tensor(), Mask(), Mask(threshold=0.5), Embedding(), Embedding(normalized=True)]),
    st.builds(Labels, st.lists(fractions, min_size=1, max_size=3).map(tuple)),
    st.builds(Values, st.lists(st.text(), max_size=3).map(tuple)),
    st.builds(Tokens, st.text()),
    st.builds(Boxes, st.sampled_from(LAYOUTS), fractions, st.floats(0, 1, exclude_min=True), st.integers(1, 9), st.text()),
)


@given(kinds)
def test_what_is_written_is_read(kind: Kind) -> None:
    assert kind_from_json(kind_to_json(kind)) == parse_kind(kind_to_json(kind)) == kind
    assert KINDS[kind.word()] is type(kind)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mask", Mask()),
        ("labels:thresholds=0.5+0.25", Labels((0.5, 0.25))),
        ("values:units=m+kg", Values(("m", "kg"))),
        ("embedding:normalized=true", Embedding(normalized=True)),
        ("boxes:layout=yolo,score=.4,most=7", Boxes("yolo", 0.4, most=7)),
    ],
)
def test_people_write_parameters_in_short(text: str, kind: Kind) -> None:
    assert parse_kind(text) == kind


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("masks", "there is no kind 'masks'; choose one of: classes, labels, values, embedding, mask, boxes, tokens, "),
        ("labels:thresholds=2", "a threshold is 2; it must be from 0 to 1"),
        ("labels:thresholds=nan", "a threshold is nan; it must be from 0 to 1"),
        ("labels:threshold=0.5", "the kind 'labels' has no parameter 'threshold'; it has thresholds"),
        ("classes:top=3", "the kind 'classes' has no parameter 'top'; it has none"),
        ("boxes:layout=ssd", "layout: invalid enum value 'ssd'; it may be torchvision, yolo, yolov5, detr, rtdetr"),
        ("boxes:score=2", "the least score is 2; it must be from 0 to 1"),
        ("boxes:iou=0", "the overlap is 0, so that no two boxes of a class could touch; give more than 0, or 1 to keep all"),
        ("boxes:iou=1.5", "the overlap is 1.5; it must be from 0 to 1"),
        ("boxes:score=0.3,iou=0.5,score=0.4", "the parameter 'score' is given twice"),
        ("labels:thresholds=", "thresholds: expected `float`, got `str`"),
        ("labels:thresholds=0.5+", "thresholds: expected `float`, got `str`"),
        ("embedding:normalized=perhaps", "normalized: expected `bool`, got `str`"),
        ("embedding:size=3", "the kind 'embedding' has no parameter 'size'; it has normalized"),
        ("values:unit=m", "the kind 'values' has no parameter 'unit'; it has units"),
        ("tokens:inside=I", "the kind 'tokens' has no parameter 'inside'; it has outside"),
        ("tensor:most=3", "the kind 'tensor' has no parameter 'most'; it has none"),
        ("", "there is no kind ''; choose one of"),
        ("boxes:most=x", "most: expected `int`, got `str`"),
        ("mask:threshold=nan", "the threshold is nan; it must be a number"),
        ("mask:threshold=x", "threshold: expected `float`, got `str`"),
        ("boxes:most=0", "the most boxes are 0; it must be at least 1"),
        ("boxes:iou", "'iou' is not of the form PARAMETER=VALUE"),
        ('{"kind": "labels", "thresholds": []}', "there is no threshold; give one for all labels, or one for each"),
        ('{"kind": 1}', "there is no kind 1"),
        ("{", "is no JSON object"),
    ],
)
def test_what_is_no_kind_is_said_in_a_clause(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_kind(text)


@given(
    st.sampled_from([*KINDS, "", "masks"]),
    st.lists(st.tuples(st.sampled_from(["score", "thresholds", "units", "layout", "outside", "most", ""]), st.text(max_size=5))),
)
def test_whatever_somebody_writes_is_a_kind_or_said_to_be_none(word: str, parameters: list[tuple[str, str]]) -> None:
    text = f"{word}:{','.join(f'{name}={value}' for name, value in parameters)}"
    try:
        kind = parse_kind(text)
    except ValueError:  # and nothing else
        return
    assert kind.word() == word


_ABC: tuple[str, ...] = ("a", "b", "c")
FITS: list[tuple[Kind, dict[str, tuple[int, ...]], tuple[str, ...], Any]] = [
    (Classes(), {"t": (3,)}, _ABC, ""),
    (Labels((0.1, 0.2, 0.3)), {"t": (3,)}, (), ""),
    (Values(("m",)), {"t": (3,)}, _ABC, ""),
    (Embedding(), {"t": (3,)}, (), ""),
    (Mask(), {"t": (3, 4, 4)}, _ABC, "image"),
    (Mask(), {"t": (1, 4, 4)}, ("nothing", "thing"), "image"),
    (Tokens(), {"t": (-1, 3)}, _ABC, "text"),
    (Boxes("yolo"), {"t": (7, 100)}, _ABC, "image"),
    (Boxes("yolov5"), {"t": (100, 8)}, _ABC, "image"),
    (Boxes("detr"), {"t.logits": (9, 4), "t.pred_boxes": (9, 4)}, _ABC, "image"),
    (Boxes("rtdetr"), {"t.logits": (9, 3), "t.pred_boxes": (9, 4)}, _ABC, "image"),
    (Boxes("yolo"), {"t": (7, -1)}, (), "image"),
    (Boxes(), {"t.boxes": (9, 4), "t.scores": (9,), "t.labels": (9,)}, _ABC, "image"),
    (Tensor(), {"t.a": (), "t.b": (1, 2, 3, 4)}, (), ""),
]
DO_NOT: list[tuple[Kind, dict[str, tuple[int, ...]], tuple[str, ...], Any, str]] = [
    (Classes(), {"t": (4,)}, _ABC, "", "has 3 labels for 4 classes"),
    (Classes(), {"t": (4, 4)}, (), "", "gives [n, 4, 4], and classes are one output of shape [n, C]"),
    (Labels((0.1, 0.2)), {"t": (3,)}, (), "", "has 2 thresholds for 3 labels"),
    (Values(("m", "kg")), {"t": (3,)}, (), "", "has 2 units for 3 values"),
    (Embedding(), {"t": (3,)}, _ABC, "", "has 3 labels, and an embedding has none"),
    (Mask(), {"t": (3, -1, -1)}, (), "", "takes no images, and a mask is of one"),
    (Mask(), {"t": (3,)}, (), "image", "gives [n, 3], and a mask is one output of shape [n, C, h, w]"),
    (Mask(), {"t": (256, 4, 4)}, (), "image", "gives 256 classes, and a mask has at most 255"),
    (Tokens(), {"t": (-1, 3)}, _ABC, "image", "has no tokenizer, and tokens are of a text"),
    (Tokens(), {"t": (-1, 3)}, (), "text", "has no labels, and tokens are told apart by them"),
    (Boxes("yolo"), {"t": (8, 100)}, _ABC, "image", "has 3 labels, and none of [8, 100] is 4 more"),
    (Boxes("detr"), {"t.a": (9, 4), "t.b": (9, 4)}, (), "image", "several of them could be the boxes; give the parameter boxes"),
    (Boxes("detr", boxes="c"), {"t.a": (9, 4), "t.b": (9, 4)}, (), "image", "gives t.a, t.b, and no 'c'"),
    (Boxes("yolo"), {"t": (3,)}, (), "image", "of the layout yolo, none of them could be the boxes"),
    (
        Boxes("yolo"),
        {"t": (4, 100)},
        (),
        "image",
        "gives [n, 4, 100], and a box of the layout yolo has 4 numbers and one for each class",
    ),
    (
        Boxes("yolo"),
        {"t": (-1, 4)},
        (),
        "image",
        "gives [n, ?, 4], and a box of the layout yolo has 4 numbers and one for each class",
    ),
    (Boxes("yolo"), {"t": (7, 7)}, _ABC, "image", "gives [n, 7, 7], and nothing tells which of the two are the numbers of a box"),
    (
        Boxes("detr"),
        {"t.logits": (9, 1), "t.pred_boxes": (9, 4)},
        (),
        "image",
        "gives one score for each box, and in the layout detr",
    ),
    (Boxes("detr"), {"t.logits": (9, 3), "t.pred_boxes": (9, 4)}, _ABC, "image", "has 3 labels for 2 classes"),
    (Boxes("detr"), {"t.l": (8, 3), "t.b": (9, 4)}, (), "image", "gives 9 in t.b and 8 in t.l, and they are of the same boxes"),
    (Labels(), {"t": (3, 4, 4)}, (), "", "gives [n, 3, 4, 4], and labels are one output of shape [n, L]"),
    (Labels(), {"t": (3,)}, ("a",), "", "has 1 label for 3 outputs"),
    (Values(), {"t": (3,)}, ("a", "b"), "", "has 2 names for 3 values"),
    (Values(), {"t.a": (3,), "t.b": (3,)}, (), "", "gives [n, 3] and [n, 3], and values are one output of shape [n, V]"),
    (Embedding(), {"t": (-1, 3)}, (), "", "gives [n, ?, 3], and an embedding is one output of shape [n, D]"),
    (Mask(), {"t": (3, 4, 4)}, ("a", "b"), "image", "has 2 labels for 3 classes"),
    (Tokens(), {"t": (3,)}, _ABC, "text", "gives [n, 3], and tokens have one output of shape [n, T, C]"),
    (Tokens(), {"t": (-1, 4)}, _ABC, "text", "has 3 labels for 4 classes"),
    (Boxes(), {"t": (9, 4)}, (), "image", "none of them could be the scores"),
]


@pytest.mark.parametrize(("kind", "outputs", "labels", "takes"), FITS)
def test_a_network_of_its_shape_can_be_of_a_kind(
    kind: Kind, outputs: dict[str, tuple[int, ...]], labels: tuple[str, ...], takes: Any
) -> None:
    kind.check(outputs, labels, takes)


@pytest.mark.parametrize(("kind", "outputs", "labels", "takes", "words"), DO_NOT)
def test_a_network_of_another_shape_cannot_and_it_is_said_why(
    kind: Kind, outputs: dict[str, tuple[int, ...]], labels: tuple[str, ...], takes: Any, words: str
) -> None:
    with pytest.raises(KindDoesNotFit) as caught:
        kind.check(outputs, labels, takes)
    assert words in str(caught.value)


def test_outputs_of_boxes_are_told_by_shape_then_by_name_and_can_be_named() -> None:
    equal = {"t.a": (9, 4), "t.b": (9, 4)}
    assert Boxes("detr", boxes="b").find(equal) == BoxOutputs("t.b", "t.a")
    assert Boxes().find({"t.x": (9, 4), "t.scores": (9,), "t.labels": (9,)}) == BoxOutputs("t.x", "t.labels", "t.scores")


def test_one_vector_is_taken_for_classes_and_all_else_for_tensors() -> None:
    assert [assumed_kind(outputs) for outputs in ({"t": (3,)}, {"t": (3, 4)}, {"a": (3,), "b": (3,)})] == [
        Classes(),
        Tensor(),
        Tensor(),
    ]
