"""What requests to a repository bring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.framework.errors import NoSuchSize, SizeOutside, TooManyRowsAtOnce
from benchmarks.repository.question import ALL_SIZES, Question
from benchmarks.repository.rows import Sizes, choose_sizes, describe_rows, make_rows
from contract.repository import Repository, Step, Task, TensorSpec
from contract.repository.free_sizes import FreeSize
from contract.repository.sample import sample_rows

IDS = TensorSpec("ids", "INT64", (-1,), axes=("length",))
MASK = TensorSpec("mask", "INT64", (-1,), axes=("length",))
IMAGE = TensorSpec("image", "UINT8", (8, 8, 3))


def task(name: str, *inputs: TensorSpec, size: FreeSize | None = None, most: int = 9) -> Task:
    sizes = {"length": size} if size else {}
    values = {"ids": (5, most)} if IDS in inputs else {}
    return Task(name, (Step("s", tuple(spec.name for spec in inputs), (name,)),), inputs, (), 8, sizes=sizes, values=values)


def asked(**sizes: int) -> Question:
    return Question(Path(), sizes={ALL_SIZES if name == "every" else name: size for name, size in sizes.items()})


def test_tokens_lie_in_the_vocabulary_of_every_task_and_others_are_the_sample() -> None:
    tasks = {"a": task("a", IDS, MASK, most=9), "b": task("b", IDS, most=6), "c": task("c", IMAGE)}
    rows = make_rows(Repository(Path(), {}, tasks), ["a", "b", "c"], Sizes({"length": 200}, 1), 2)
    assert {name: (values.shape, values.dtype) for name, values in rows.items()} == {
        "ids": ((2, 200), np.dtype("int64")),
        "mask": ((2, 200), np.dtype("int64")),
        "image": ((2, 8, 8, 3), np.dtype("uint8")),
    }
    assert set(rows["ids"].ravel()) == {5, 6}
    assert set(rows["mask"].ravel()) == {0, 1}
    np.testing.assert_array_equal(rows["image"], sample_rows(IMAGE, 2))
    assert describe_rows([*tasks.values()], Sizes({"length": 200}, 1), 2) == (
        "Each request has 2 rows, length 200; ids: random numbers of the recorded vocabulary; image: the sample that exports record, "
        "coarse patches and noise; mask: 0 or 1."
    )


def test_strings_and_open_sizes_are_made_up() -> None:
    plain = Task("p", (), (TensorSpec("text", "BYTES", (-1,)),), (), 8)
    assert choose_sizes([plain], asked()).unnamed == 64
    sizes = choose_sizes([plain], asked(every=3))
    rows = make_rows(Repository(Path(), {}, {"p": plain}), ["p"], sizes, 1)
    assert rows["text"].tolist() == [[b"a few words"] * 3]
    assert "3 for each size that its model leaves open; text: a few words." in describe_rows([plain], sizes, 1)


def test_sizes_are_the_references_unless_they_are_given() -> None:
    tasks = [task("a", IDS, size=FreeSize(16, 2, 64)), task("b", IDS, size=FreeSize(32, 4, None))]
    assert choose_sizes(tasks, asked()).named == {"length": 32}
    assert choose_sizes(tasks, asked(length=64)).named == choose_sizes(tasks, asked(every=64)).named == {"length": 64}
    assert choose_sizes([task("a", IDS, size=FreeSize(8, 1, 8)), tasks[1]], asked()).named == {"length": 8}
    with pytest.raises(SizeOutside, match=r"Task 'a' takes length 2 to 64, not 65\."):
        choose_sizes(tasks, asked(length=65))
    with pytest.raises(SizeOutside, match=r"Task 'b' takes length at least 4, not 3\."):
        choose_sizes(tasks, asked(length=3))
    with pytest.raises(NoSuchSize, match=r"No task that is measured has a free size 'width'; there are length\."):
        choose_sizes(tasks, asked(width=3))
    with pytest.raises(NoSuchSize, match=r"has a free size; all of them are fixed\."):
        choose_sizes([task("c", IMAGE)], asked(every=3))


def test_more_rows_than_a_task_takes_are_refused() -> None:
    with pytest.raises(TooManyRowsAtOnce, match=r"Task 'c' takes 8 rows at once, not 9\."):
        choose_sizes([task("c", IMAGE)], Question(Path(), rows=9))
