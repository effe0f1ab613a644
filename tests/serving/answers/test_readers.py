"""From a network's values to what people read: where things lie in the picture, what overlaps, where spans begin and end."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from contract.dtypes import Array
from contract.kinds.boxes import Boxes
from contract.kinds.classes import Classes
from contract.kinds.embedding import Embedding
from contract.kinds.kind import Kind, KindDoesNotFit, Scores
from contract.kinds.labels import Labels
from contract.kinds.mask import UNKNOWN, Mask
from contract.kinds.tokens import Tokens
from contract.kinds.values import Values
from contract.preprocessing import Preprocessing
from contract.repository.model import Task, TensorSpec
from contract.text import EncodedText
from serving.answers.answer import About
from serving.answers.boxes import read_boxes
from serving.answers.embedding import read_embedding
from serving.answers.geometry import frame_of
from serving.answers.labels import read_labels
from serving.answers.mask import read_mask
from serving.answers.readers import read_answers
from serving.answers.tokens import read_tokens
from serving.answers.values import read_values

ways = st.builds(
    Preprocessing,
    st.integers(8, 24),
    st.integers(8, 24),
    interpolation=st.just("nearest"),
    crop_fraction=st.sampled_from([0.5, 0.7, 1.0]),
)
sizes = st.tuples(st.integers(12, 70), st.integers(12, 70))


def task(kind: Kind, labels: tuple[str, ...] = (), how: Preprocessing | None = None, **outputs: tuple[int, ...]) -> Task:
    specs = tuple(TensorSpec(name.replace("_", "."), "FP32", shape) for name, shape in (outputs or {"t": (3,)}).items())
    return Task("t", (), (), specs, 8, labels, how, kind=kind)


def one_hot(classes: Array, count: int) -> Array:
    return np.moveaxis(np.eye(count, dtype=np.float32)[classes], -1, 0)[None]


def decoded(png: str) -> Array:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


@settings(max_examples=60, deadline=None)
@given(ways, sizes, st.randoms(use_true_random=False))
def test_a_mask_lies_where_the_picture_has_it_and_is_unknown_where_it_was_cut_off(
    how: Preprocessing, size: tuple[int, int], random: Any
) -> None:
    """The network here sees perfectly: its mask is the picture as it got it. With the nearest pixel taken, what it has seen comes back."""
    picture = np.random.default_rng(random.randrange(1 << 30)).integers(0, 3, (size[1], size[0]), dtype=np.uint8)
    seen = how(Image.fromarray(np.stack([picture] * 3, -1)))[:, :, 0]
    kind = Mask()
    (found,) = read_mask(task(kind, how=how, t=(3, -1, -1)), kind, {"t": one_hot(seen, 3)}, About(pictures=[size]))
    mask = decoded(found.png)
    assert mask.shape == picture.shape == (found.height, found.width)
    frame = frame_of(*size, how)
    inside = (frame.seen_width / frame.scale_x, frame.seen_height / frame.scale_y)
    assert (mask != UNKNOWN).sum() == pytest.approx(min(inside[0], size[0]) * min(inside[1], size[1]), abs=size[0] + size[1] + 1)
    if min(frame.scale_x, frame.scale_y) >= 1:  # each pixel of the picture was seen, or cut off
        np.testing.assert_array_equal(mask[mask != UNKNOWN], picture[mask != UNKNOWN])
    counted = {area.index: area.pixels for area in found.areas}
    assert counted == {index: int((mask == index).sum()) for index in counted}
    assert sum(counted.values()) + found.unknown_pixels == mask.size
    assert sum(area.share for area in found.areas) == pytest.approx(1)


def test_a_coarse_mask_is_made_finer_before_the_best_class_is_taken() -> None:
    """Between a sure pixel and an unsure one of the other class, the border is nearer to the unsure one."""
    how, kind = Preprocessing(8, 8), Mask()
    scores = np.zeros((1, 2, 1, 2), np.float32)
    scores[0, 1] = [[3.0, -1.0]]
    (found,) = read_mask(task(kind, how=how, t=(2, 1, 2)), kind, {"t": scores}, About(pictures=[(8, 8)]))
    assert decoded(found.png)[0].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 3), (0.5, 2)])
def test_one_class_alone_is_there_above_its_threshold(threshold: float, expected: int) -> None:
    kind = Mask(threshold=threshold)
    scores = np.array([[[[0.1, 0.6], [0.9, -1.0]]]], np.float32)
    asked = task(kind, ("nothing", "thing"), Preprocessing(2, 2), t=(1, 2, 2))
    (found,) = read_mask(asked, kind, {"t": scores}, About(pictures=[(2, 2)]))
    assert {area.label: area.pixels for area in found.areas}["thing"] == expected


@settings(max_examples=60, deadline=None)
@given(ways, sizes, st.data())
def test_boxes_come_back_to_where_they_are_in_the_picture(how: Preprocessing, size: tuple[int, int], data: st.DataObject) -> None:
    """A corner of the picture is put to where resize and crop bring it, and comes back; what is cut off is cut off."""
    width, height = size
    x1, x2 = sorted(data.draw(st.lists(st.floats(0, width), min_size=2, max_size=2)))
    y1, y2 = sorted(data.draw(st.lists(st.floats(0, height), min_size=2, max_size=2)))
    wide, high = how.resized_size(width, height)
    left, top = how.corner(wide, high)
    there = np.array([[x1, y1, x2, y2]]) * ([wide / width, high / height] * 2) - [left, top] * 2
    kind = Boxes(score=0.1)
    asked = task(kind, ("thing",), how, t_boxes=(1, 4), t_scores=(1,), t_labels=(1,))
    values = {"t.boxes": there[None], "t.scores": np.array([[0.9]]), "t.labels": np.array([[0]])}
    (found,) = read_boxes(asked, kind, values, About(pictures=[size]))
    seen = [max(0, -left), max(0, -top)]
    lowest = np.array([left, top] * 2) / ([wide / width, high / height] * 2)
    highest = np.array([left + how.width, top + how.height] * 2) / ([wide / width, high / height] * 2)
    expected = np.clip(np.clip([x1, y1, x2, y2], lowest, highest), 0, [width, height] * 2)
    assert seen == [0, 0]
    if (expected[2:] - expected[:2]).min() > 1e-6:
        np.testing.assert_allclose(found.boxes[0].box, expected, atol=1e-6)
    elif (expected[2:] <= expected[:2]).any():
        assert not found.boxes


def overlap(a: Array, b: Array) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(both / (sum(areas) - both))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 25), st.integers(0, 1 << 30), st.sampled_from([0.2, 0.5, 1.0]), st.integers(1, 8))
def test_of_boxes_that_overlap_the_best_stays(count: int, seed: int, iou: float, most: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 20, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(4, 12, (count, 2))], 1)
    scores, classes = random.permutation(np.linspace(0.05, 0.95, count)), random.integers(0, 2, count)
    kind = Boxes(score=0.25, iou=iou, most=most)
    asked = task(kind, ("a", "b"), Preprocessing(32, 32), t_boxes=(count, 4), t_scores=(count,), t_labels=(count,))
    values = {"t.boxes": boxes[None], "t.scores": scores[None], "t.labels": classes[None]}
    (found,) = read_boxes(asked, kind, values, About(pictures=[(32, 32)]))
    expected: list[int] = []
    for index in np.argsort(-scores):
        others = [other for other in expected if classes[other] == classes[index]]
        if scores[index] >= 0.25 and all(overlap(boxes[index], boxes[other]) <= iou for other in others):
            expected.append(int(index))
    assert [box.score for box in found.boxes] == pytest.approx([scores[index] for index in expected[:most]])
    assert [box.label for box in found.boxes] == ["ab"[classes[index]] for index in expected[:most]]


def test_nan_and_infinite_boxes_are_no_boxes() -> None:
    kind = Boxes()
    asked = task(kind, (), Preprocessing(8, 8), t_boxes=(3, 4), t_scores=(3,), t_labels=(3,))
    boxes = np.array([[[0, 0, np.nan, 4], [0, 0, np.inf, 4], [0, 0, 4, 4]]])
    values = {"t.boxes": boxes, "t.scores": np.array([[0.9, 0.9, np.nan]]), "t.labels": np.zeros((1, 3))}
    (found,) = read_boxes(asked, kind, values, About(pictures=[(8, 8)]))
    assert found.boxes == []


@pytest.mark.parametrize("layout", ["yolo", "yolov5"])
@pytest.mark.parametrize("turned", [False, True])
def test_yolos_axes_are_told_by_the_labels(layout: Any, turned: bool) -> None:
    rows = np.array([[4, 4, 4, 2, 0.9, 0.1, 0.8], [9, 9, 4, 2, 0.5, 0.1, 0.3]])  # fewer boxes than numbers of one
    rows = np.delete(rows, 4, axis=1) if layout == "yolo" else rows
    kind = Boxes(layout, score=0.5)
    values = rows.T if turned else rows
    (found,) = read_boxes(
        task(kind, ("a", "b"), Preprocessing(16, 16), t=values.shape), kind, {"t": values[None]}, About(pictures=[(16, 16)])
    )
    ((label, score, box),) = [(one.label, one.score, one.box) for one in found.boxes]
    assert (label, box) == ("b", (2, 3, 6, 5))
    assert score == pytest.approx(0.8 if layout == "yolo" else 0.72)


def test_labels_hold_from_their_thresholds_on() -> None:
    kind = Labels((0.5, 0.9, 0.1))
    rows = {"t": np.log([[0.6 / 0.4, 0.8 / 0.2, 0.2 / 0.8], [0.4 / 0.6, 0.95 / 0.05, 0.05 / 0.95]])}
    first, second = read_labels(task(kind, ("a", "b", "c")), kind, rows, About())
    assert [(one.label, round(one.score or 0, 6)) for one in first.labels] == [("a", 0.6), ("c", 0.2)]
    assert [one.label for one in second.labels] == ["b"]
    ended = replace(task(kind), scores="independent")  # a sigmoid is in the network
    assert [one.label for one in read_labels(ended, kind, {"t": np.array([[0.5, 0.5, 0.5]])}, About())[0].labels] == ["0", "2"]


def test_a_label_of_which_nobody_knows_whether_it_holds_is_shown() -> None:
    (found,) = read_labels(task(Labels((0.5,)), ("a", "b", "c")), Labels((0.5,)), {"t": np.array([[np.nan, -2.0, 2.0]])}, About())
    assert [one.label for one in found.labels] == ["c", "a"]
    assert json.loads(found.model_dump_json())["labels"][1] == {"label": "a", "score": None}


@pytest.mark.parametrize(
    ("scores", "values", "expected"),
    [
        ("value", np.array([[-2.0], [2.0]], np.float32), [0, 1]),  # the logit of the only label
        ("independent", np.array([[0.4], [0.6]], np.float32), [0, 1]),
        ("value", np.array([[0], [1]]), [0, 1]),
        ("logits", np.array([[0, 1], [1, 1]]), [1, 2]),
        ("log_probabilities", np.log(np.array([[0.4, 0.6]], np.float32)), [1]),
    ],
)
def test_labels_are_read_as_the_network_ends(scores: Any, values: Array, expected: list[int]) -> None:
    made = replace(task(Labels(), t=values.shape[1:]), scores=scores)
    assert [len(found.labels) for found in read_labels(made, Labels(), {"t": values}, About())] == expected


def test_values_have_names_and_units_and_embeddings_a_length() -> None:
    kind = Values(("m", "kg", ""))
    (found,) = read_values(task(kind, ("height", "weight")), kind, {"t": np.array([[1.5, 80, np.nan]], np.float32)}, About())
    assert [(one.name, one.unit) for one in found.values] == [("height", "m"), ("weight", "kg"), ("2", "")]
    assert '"value":null' in found.model_dump_json()
    rows = {"t": np.array([[3, 0, 4], [0, 0, 0]], np.float32)}
    long, zeros = read_embedding(task(Embedding()), Embedding(normalized=True), rows, About())
    assert (long.size, long.vector, zeros.vector) == (3, pytest.approx([0.6, 0, 0.8]), [0, 0, 0])
    (written, _) = read_embedding(task(Embedding()), Embedding(), rows, About(vectors="base64"))
    assert np.frombuffer(base64.b64decode(str(written.vector)), "<f4").tolist() == [3, 0, 4]


class _Tokens:
    """As the library's encoding, for words between blanks behind one token that is added."""

    def __init__(self, text: str) -> None:
        ends = np.cumsum([len(word) + 1 for word in text.split(" ")])
        self.offsets = [
            (0, 0),
            *((int(end) - len(word) - 1, int(end) - 1) for word, end in zip(text.split(" "), ends, strict=True)),
        ]
        self.special_tokens_mask = [1] + [0] * len(ends)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-A I-A O", ["Ben Ali:A"]),
        ("B-A B-A I-A O", ["Ada:A", "Ben Ali:A"]),
        ("B-A I-B I-B O", ["Ada:A", "Ben Ali:B"]),
        ("A A O A", ["Ada Ben:A", "ran:A"]),
        ("S-A S-A B-A E-A", ["Ada:A", "Ben:A", "Ali ran:A"]),
        ("O O O O", []),
    ],
)
def test_neighbours_of_one_label_are_a_span(tags: str, expected: list[str]) -> None:
    labels = tuple(dict.fromkeys(["O", *tags.split()]))
    rows = np.full((1, 5, len(labels)), -4.0)
    rows[0, 0, -1] = 9  # of the token that is added
    for place, tag in enumerate(tags.split(), 1):
        rows[0, place, labels.index(tag)] = 4.0
    kind, text = Tokens(), "Ada Ben Ali ran"
    about = About(texts=[EncodedText(text, lambda: _Tokens(text))])  # type: ignore[arg-type]
    (found,) = read_tokens(task(kind, labels, t=(-1, len(labels))), kind, {"t": rows}, about)
    assert [f"{span.text}:{span.label}" for span in found.spans] == expected
    assert all(text[span.start : span.end] == span.text and 0.9 < (span.score or 0) <= 1 for span in found.spans)


@pytest.mark.parametrize(("scores", "turn"), [("logits", np.log), ("log_probabilities", np.log), ("probabilities", np.asarray)])
def test_tokens_score_the_same_however_the_network_ends(scores: Any, turn: Any) -> None:
    made = replace(task(Tokens(), ("O", "X"), t=(-1, 2)), scores=scores)
    about = About(texts=[EncodedText("Ada", lambda: _Tokens("Ada"))])  # type: ignore[arg-type]
    (found,) = read_tokens(made, Tokens(), {"t": turn(np.array([[[0.8, 0.2], [0.1, 0.9]]]))}, about)
    assert [span.score for span in found.spans] == [pytest.approx(0.9)]


def test_a_drawn_rectangle_is_one_thing_to_mask_and_boxes() -> None:
    """Both go by the same geometry: the corners of the mask's pixels are the box."""
    how = Preprocessing(24, 24, interpolation="bilinear", crop_fraction=0.75)
    picture = Image.new("L", (60, 90))
    ImageDraw.Draw(picture).rectangle([20, 34, 39, 53], fill=255)
    seen = (how(picture.convert("RGB"))[:, :, 0] > 127).astype(np.intp)
    rows, columns = np.nonzero(seen)
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float64)
    mask, boxes = Mask(), Boxes()
    (one,) = read_mask(task(mask, how=how, t=(2, 24, 24)), mask, {"t": one_hot(seen, 2)}, About(pictures=[(60, 90)]))
    asked = task(boxes, (), how, t_boxes=(1, 4), t_scores=(1,), t_labels=(1,))
    values = {"t.boxes": box[None], "t.scores": np.ones((1, 1)), "t.labels": np.ones((1, 1))}
    (other,) = read_boxes(asked, boxes, values, About(pictures=[(60, 90)]))
    ys, xs = np.nonzero(decoded(one.png) == 1)
    np.testing.assert_allclose(other.boxes[0].box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1.2)
    np.testing.assert_allclose(other.boxes[0].box, [20, 34, 40, 54], atol=2)


_SHAPES = st.one_of(*(st.tuples(*[st.sampled_from([-1, 1, 2, 3, 4, 5, 6, 7])] * rank) for rank in range(1, 4)))
_KINDS = st.one_of(
    st.sampled_from([Classes(), Labels(), Values(("m",)), Embedding(), Embedding(normalized=True), Mask(), Tokens()]),
    st.builds(Boxes, st.sampled_from(["torchvision", "yolo", "yolov5", "detr", "rtdetr"]), st.sampled_from([0.0, 0.5])),
)
_OUTPUTS = st.one_of(
    st.builds(lambda shape: {"t": shape}, _SHAPES),
    st.dictionaries(st.sampled_from(["t.boxes", "t.scores", "t.labels"]), _SHAPES, min_size=2),
    st.builds(lambda n, c: {"t.boxes": (n, 4), "t.labels": (n, c)}, st.sampled_from([-1, 3]), st.integers(1, 4)),
    st.builds(lambda n: {"t.boxes": (n, 4), "t.scores": (n,), "t.labels": (n,)}, st.sampled_from([-1, 3])),
)
_SCORES: tuple[Scores, ...] = ("", "logits", "probabilities", "independent", "log_probabilities", "value")


def answers_to_anything(asked: Task, free: int, odd: float, seed: int) -> list[Any]:
    """Return what is read from random numbers, some of them `odd`. free: what sizes are that are free."""
    random = np.random.default_rng(seed)
    values = {}
    for spec in asked.outputs:
        shape = [free if size < 0 else size for size in spec.shape]
        values[spec.name] = random.normal(0, 5, (2, *shape)).astype(np.float32)
        values[spec.name][random.random((2, *shape)) < 0.1] = odd
    text = EncodedText("Ada Ben", lambda: _Tokens("Ada Ben"))  # type: ignore[arg-type]
    about = About(texts=[text] * 2) if isinstance(asked.kind, Tokens) else About(pictures=[(9, 5), (1, 1)])
    return [*asyncio.run(read_answers(asked, values, about))]


@settings(max_examples=200, deadline=None)
@given(
    _KINDS,
    _OUTPUTS,
    st.integers(0, 4),
    st.integers(0, 7),
    st.sampled_from(_SCORES),
    st.sampled_from([np.nan, np.inf, -np.inf, 0.5]),
    st.integers(0, 1 << 30),
)
def test_whatever_fits_a_kind_is_read(
    kind: Kind, outputs: dict[str, tuple[int, ...]], labels: int, free: int, scores: Scores, odd: float, seed: int
) -> None:
    """Networks of any shapes: either they are refused, or any numbers that they give, NaN and infinities too, are an answer."""
    names = tuple(map(str, range(labels)))
    how = None if isinstance(kind, Tokens) else Preprocessing(4, 6, crop_fraction=0.7)
    try:
        kind.check(outputs, names, "image" if how else "text")
    except KindDoesNotFit:
        return
    asked = replace(task(kind, names, how), scores=scores, outputs=tuple(TensorSpec(n, "FP32", s) for n, s in outputs.items()))
    answers = answers_to_anything(asked, free if isinstance(kind, Boxes) else free + 1, odd, seed)
    assert [answer.kind for answer in answers] == [kind.word()] * 2
    for answer in answers:
        json.loads(answer.model_dump_json(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_what_is_no_class_is_no_box() -> None:
    """Detectors fill up with the class -1; it is not the last of the labels."""
    kind, how = Boxes(score=0.1), Preprocessing(8, 8)
    asked = task(kind, ("thing", "other"), how, t_boxes=(3, 4), t_scores=(3,), t_labels=(3,))
    values = {
        "t.boxes": np.array([[[0, 0, 4, 4]] * 3]),
        "t.scores": np.array([[0.9, 0.8, 0.7]]),
        "t.labels": np.array([[-1, 1, 0]]),
    }
    (found,) = read_boxes(asked, kind, values, About(pictures=[(8, 8)]))
    assert [box.label for box in found.boxes] == ["other", "thing"]


@pytest.mark.parametrize("free", [2, 9])
def test_the_axis_of_yolo_that_is_free_has_the_boxes(free: int) -> None:
    """Of a small picture there are fewer boxes than a box has numbers."""
    kind, how = Boxes("yolo", score=0.1), Preprocessing(8, 8)
    asked = task(kind, (), how, t=(6, -1))
    rows = np.tile(np.array([4.0, 4, 2, 2, 0.0, 0.9])[:, None], (1, free))[None]
    (found,) = read_boxes(asked, kind, {"t": rows}, About(pictures=[(8, 8)]))
    assert [(box.label, box.box) for box in found.boxes] == [("1", (3.0, 3.0, 5.0, 5.0))]
