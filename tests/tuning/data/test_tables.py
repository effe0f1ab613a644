"""Tables of labels and values: what is read, and what is refused with the line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.kinds.labels import Labels
from contract.kinds.mask import Mask
from contract.kinds.values import Values
from contract.preprocessing import Preprocessing
from tuning.data.labelled import Draw, TaskData
from tuning.data.sources import DataOptions, load_data
from tuning.data.tables import TableOptions, table_task
from tuning.errors import BadData, BadOptions

SIZE = Preprocessing(height=8, width=8, interpolation="bilinear")
LABELS, VALUES = TableOptions(Labels()), TableOptions(Values(("mm",)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten grey pictures; the brightness of each is ten times its number."""
    for index in range(10):
        Image.new("RGB", (8, 8), (10 * index,) * 3).save(tmp_path / f"{index}.png")
    return tmp_path


def read(path: Path, text: str, options: TableOptions, draw: Draw | None = None) -> TaskData:
    path.write_text(text)
    return table_task(path, options, SIZE, draw or Draw())


def csv(header: str, *cells: str) -> str:
    return "\n".join([f"image,{header}", *(f"{index}.png,{cell}" for index, cell in enumerate(cells))])


def by_image(data: TaskData) -> dict[int, list[float]]:
    """Return the targets of all images by their numbers, which their brightness tells."""
    return {
        int(image.max()) // 10: [float(target) for target in targets]
        for split in (data.train, data.test)
        for image, targets in zip(split.images, split.targets, strict=True)
    }


def test_labels_of_csv_and_json_are_the_same(folder: Path) -> None:
    cells = ["a;b", "a", "", "b|a", " b "] * 2
    wanted = {index: [float("a" in cell), float("b" in cell)] for index, cell in enumerate(cells)}
    lines = [json.dumps({"image": f"{i}.png", "labels": re.findall("[ab]", cell)}) for i, cell in enumerate(cells)]
    for name, text in (("t.csv", csv("labels", *cells)), ("t.jsonl", "\n".join(lines))):
        data = read(folder / name, text, LABELS)
        assert data.labels == ("a", "b")
        assert by_image(data) == wanted
        assert (len(data.train), len(data.test)) == (8, 2)


def test_values_of_csv_and_json_are_the_same(folder: Path) -> None:
    lines = [json.dumps({"image": f"{i}.png", "values": {"side": i, "area": i * i}}) for i in range(10)]
    cells = csv("side,area", *(f"{i},{i * i}" for i in range(10)))
    for name, text in (("t.csv", cells), ("t.jsonl", "\n".join(lines))):
        data = read(folder / name, text, VALUES)
        assert data.labels == ("side", "area")
        assert by_image(data) == {i: [i, i * i] for i in range(10)}
    chosen = read(folder / "t.csv", cells, TableOptions(Values(), values=("area",)), Draw(train_images=4, seed=1))
    assert (chosen.labels, len(chosen.train)) == (("area",), 4)
    assert all(by_image(chosen)[i] == [i * i] for i in by_image(chosen))


@pytest.mark.parametrize(
    ("name", "text", "options", "said"),
    [
        ("t.csv", csv("names", *"ab" * 5), LABELS, "line 2: there is no column 'labels'; there are 'image', 'names'"),
        ("t.csv", csv("labels", *"aaaaaaaaaa"), LABELS, "must have at least 2 labels in the column 'labels'; it has only 'a'"),
        ("t.csv", csv("labels", *"ab" * 6), LABELS, "2 images are not there: '10.png' (line 12), '11.png' (line 13); paths"),
        ("t.csv", csv("side", "1", "2", "three"), VALUES, "line 4: 'three' in the column 'side' is no finite number"),
        ("t.csv", csv("side", "1", "nan"), VALUES, "line 3: 'nan' in the column 'side' is no finite number"),
        ("t.csv", csv("side", "1", "2,3"), VALUES, "line 3: there are not 2 cells"),
        ("t.csv", "image,side,side\n0.png,1,1", VALUES, "has the column 'side' twice"),
        ("t.csv", "image,side\n", VALUES, "lists no images"),
        ("t.csv", "image\n0.png", VALUES, "has no column of values beside 'image'"),
        ("t.jsonl", '{"image": "0.png", "labels": 3}', LABELS, "line 1: 3 are no labels"),
        ("t.jsonl", '{"image": "0.png"', LABELS, "line 1: it is no JSON"),
        ("t.jsonl", '{"image": "0.png", "a": 1}\n{"image": "1.png", "a": 1, "b": 2}', VALUES, "line 2: 'b' is in no line before"),
        ("t.csv", csv("labels", *"ab" * 5), TableOptions(Labels((0.5, 0.5, 0.5))), "it has 3 thresholds for 2 labels"),
        ("t.csv", csv("labels", "b", *"aaaaaaaaa"), LABELS, "no readable training image with the label 'b'"),
        ("t.txt", "", LABELS, "is no table; labels and values come in a file that ends in .csv, .jsonl"),
    ],
)
def test_bad_tables_are_refused(folder: Path, name: str, text: str, options: TableOptions, said: str) -> None:
    seed = next(s for s in range(99) if np.random.default_rng(s).permutation(10)[0] == 0)  # which holds the first image out
    with pytest.raises(BadData, match=re.escape(said)):
        read(folder / name, text, options, Draw(seed=seed))


def test_other_kinds_are_refused_and_tables_are_not_for_classes(folder: Path) -> None:
    with pytest.raises(BadOptions, match="kind 'mask' cannot be tuned; classes, labels and values can"):
        TableOptions(Mask())
    (folder / "t.csv").write_text(csv("side", *map(str, range(10))))
    with pytest.raises(BadData, match="is a table, which is for the kinds labels and values"):
        load_data(str(folder / "t.csv"), SIZE)
    data = load_data(str(folder / "t.csv"), SIZE, DataOptions(table=VALUES, corruption="brightness:1"))
    assert data.kind == Values(("mm",))


SPLITS = ("train", "Training", "train", "train", "val", "valid", "test", "test", "test", "train")


def split_csv(*splits: str) -> str:
    return csv("split,side", *(f"{split},{index}" for index, split in enumerate(splits)))


def test_a_column_of_splits_says_who_gets_which_rows(folder: Path) -> None:
    data = read(folder / "t.csv", split_csv(*SPLITS), VALUES)
    assert data.labels == ("side",)
    assert data.test.targets.ravel().tolist() == [6, 7, 8]
    assert data.train.targets.ravel().tolist() == [0, 1, 2, 3, 9, 4, 5]
    assert data.validation is not None
    assert data.train.targets[data.validation].ravel().tolist() == [4, 5]
    assert "val to choose by" in data.remarks[0]
    chosen = read(folder / "t.csv", split_csv(*SPLITS), VALUES, Draw(train_images=5))
    assert (len(chosen.train), len(chosen.test), chosen.validation) == (5, 3, None)
    named = read(folder / "t.csv", split_csv(*SPLITS).replace("split", "part"), TableOptions(Values(), split="part"))
    assert named.test.targets.ravel().tolist() == [6, 7, 8]


def test_what_splits_lack_is_assumed_and_said(folder: Path) -> None:
    data = read(folder / "t.csv", split_csv(*["train"] * 8, "val", "val"), VALUES)
    assert (len(data.train), len(data.test), data.validation) == (8, 2, None)
    assert data.remarks == ("Splits of the table: train to learn from; val to test on, as there is no test split.",)
    data = read(folder / "t.csv", split_csv(*["train"] * 10), VALUES)
    assert (len(data.train), len(data.test)) == (8, 2)
    assert data.remarks[0].startswith("train is the only split of the table. One image of five")


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (split_csv(*SPLITS[:-1], "later"), VALUES, "line 11: 'later' is no split; give train, val or test in each line"),
        (split_csv(*["test"] * 5), VALUES, "has no row of the split 'train'; its column of splits names test alone"),
        (
            split_csv(*SPLITS) + "\n./6.png,train,3",
            VALUES,
            "line 12: the image '6.png' is in the split train, and by line 8 in test",
        ),
        (
            split_csv(*SPLITS),
            TableOptions(Values(), split="fold"),
            "line 2: there is no column 'fold'; there are 'image', 'split'",
        ),
        (
            csv("split,labels", "train,a", "train,b", "test,a;c", "train,a"),
            LABELS,
            "no readable training image with the label 'c'",
        ),
        (csv("split,labels", "train,a", "val,b", "train,b", "val,", "test,a"), LABELS, ""),
        (
            csv("split,labels", "train,a", "val,", "train,b", "val,", "test,a"),
            LABELS,
            "no readable validation image with a label",
        ),
        (csv("split,side", "train,1", "train,2", "train,NaN"), VALUES, "line 4: 'NaN' in the column 'side' is no finite number"),
    ],
)
def test_bad_splits_are_refused(folder: Path, text: str, options: TableOptions, said: str) -> None:
    if not said:
        assert read(folder / "t.csv", text, options).validation is not None
        return
    with pytest.raises(BadData, match=re.escape(said)):
        read(folder / "t.csv", text, options)


def test_a_damaged_image_of_a_split_is_left_out_and_the_rows_stay_right(folder: Path) -> None:
    (folder / "1.png").write_bytes(b"no picture")
    data = read(folder / "t.csv", split_csv(*SPLITS), VALUES)
    assert data.validation is not None
    assert data.train.targets[data.validation].ravel().tolist() == [4, 5]
    for name in (folder / f"{index}.png" for index in (4, 5)):
        name.write_bytes(b"no picture")
    with pytest.raises(BadData, match="has 0 readable validation images"):
        read(folder / "t.csv", split_csv(*SPLITS), VALUES)


def test_an_image_that_is_there_twice_is_said(folder: Path) -> None:
    data = read(folder / "t.csv", csv("side", *map(str, range(10))) + "\n./3.png,3", VALUES)
    assert data.remarks[1] == "1 line names an image that another line names, too, so that one may be learnt from and tested on."
