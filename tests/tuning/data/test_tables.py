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
        ("t.csv", csv("labels", *"ab" * 6), LABELS, "line 12: the image '10.png' is not there"),
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
