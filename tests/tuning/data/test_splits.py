"""Folders of images: splits or classes? What is in them says it."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.data.folders import FolderContents
from tuning.data.splits import SplitLayout, find_layout, role_of
from tuning.errors import BadData

WHERE = Path("data")
TRAIN = ("train", "Training", "TRAIN", "train_set", "TrainImages", "seg_train", "asl-alphabet-train", "train2017", "01 training")
TEST = ("test", "Testing", "TEST", "test_set", "TestImages", "seg_test", "evaluation", "test2017")
VALIDATION = ("val", "Valid", "validation", "val_set", "val2017", "dev")


def contents(*images: str) -> FolderContents:
    """A folder with these images, and the folders that they are in."""
    paths = [PurePath(image) for image in images]
    folders = {parent for path in paths for parent in path.parents if parent.name}
    return FolderContents(tuple(sorted(paths)), tuple(sorted(folders)), {})


def split(name: str, *classes: str) -> list[str]:
    return [f"{name}/{label}/{index}.png" for label in classes for index in range(2)]


def layout(*images: str) -> SplitLayout:
    return find_layout(contents(*images), WHERE)


@given(
    st.sampled_from(TRAIN),
    st.sampled_from(TEST),
    st.none() | st.sampled_from(VALIDATION),
    st.sets(st.text("xyz", min_size=1), min_size=2),
)
def test_split_names_with_the_same_classes_inside_are_splits(
    train: str, test: str, validation: str | None, classes: set[str]
) -> None:
    found = layout(*split(train, *classes), *split(test, *classes), *(split(validation, *classes) if validation else []))
    assert found.train == PurePath(train)
    assert found.test == PurePath(test)
    assert found.validation == (PurePath(validation) if validation else None)
    assert all(name in found.sentence for name in (train, test, validation or ""))


@given(st.sampled_from(TRAIN + TEST + VALIDATION), st.sets(st.sampled_from(["bus", "car", "tram"]), min_size=1))
def test_a_class_may_have_the_name_of_a_split(name: str, others: set[str]) -> None:
    found = layout(*(f"{label}/{index}.png" for label in (name, *others) for index in range(2)))
    assert (found.train, found.validation, found.test) == (PurePath(), None, None)


def test_names_say_a_split_by_their_words() -> None:
    assert {role_of(name) for name in TRAIN} == {"train"}
    assert {role_of(name) for name in TEST} == {"test"}
    assert {role_of(name) for name in VALIDATION} == {"validation"}
    assert {role_of(name) for name in ("trains", "valley", "contest", "train_test", "bus", "restrain", "")} == {None}


def test_what_is_there_of_the_splits_is_used() -> None:
    both = [*split("train", "a", "b"), *split("val", "a", "b")]
    assert layout(*both) == SplitLayout(
        PurePath("train"), None, PurePath("val"), "Splits: train to learn from; val to test on, as there is no test split."
    )
    assert layout(*split("Train", "a", "b")).test is None
    assert layout(*both, *split("test", "a"), "predict/1.png").sentence.endswith("predict: left out.")
    with_three = layout(*both, *split("test", "a", "b"))
    assert "val to choose by (searches score on it, final trainings learn from it, too)" in with_three.sentence


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (["train/1.png", "test/1.png"], r"holds test, train, by their names splits, but no folders of classes .* as test/CLASS"),
        (
            [*split("train", "a", "b"), "test/1.png"],
            r"data/test is a split by its name.*To learn from one split alone, give data/train\.",
        ),
        ([*split("train", "a", "b"), *split("Training", "a", "b")], "both Training and train, by their names the same split"),
        ([*split("test", "a", "b"), *split("val", "a", "b")], "no split to learn from"),
        ([*split("train", "a", "b"), "bus/1.png"], "holds train like a split, with folders in it, beside bus"),
        ([*split("train", "a", "b"), *split("bus", "a", "b")], "holds train like a split"),
        ([*split("train", "a"), *split("test", "b"), "bus/1.png"], "holds test, train like a split"),
        (
            [*split("cat", "train", "test"), *split("dog", "train", "test")],
            r"Every class folder in data holds splits \(test, train\)",
        ),
    ],
)
def test_what_could_be_either_is_refused_with_a_way_out(images: list[str], words: str) -> None:
    with pytest.raises(BadData, match=words):
        layout(*images)


def test_the_way_out_leads_out() -> None:
    """Classes that are called train and test, in a folder called train."""
    with pytest.raises(BadData, match="If these are classes, put all of them into a folder called train"):
        layout("train/1.png", "test/1.png")
    assert layout("train/train/1.png", "train/test/1.png").train == PurePath("train")
