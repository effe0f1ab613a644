from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.preprocessing import Preprocessing
from tuning.data.decode import Item, decode, for_each_row, require_memory
from tuning.data.left_out import UNREADABLE
from tuning.errors import BadData

SIZE = Preprocessing(height=8, width=8, interpolation="nearest")


def test_images_keep_their_order_over_threads_and_the_unreadable_are_left_out(tmp_path: Path) -> None:
    items = []
    for value in range(200):
        file = tmp_path / f"{value}.png"
        Image.new("RGB", (9, 8), (value, 0, 0)).save(file)
        items.append(Item(file.name, 0, partial(Image.open, file)))
    (tmp_path / "70.png").write_bytes(b"no image")
    (tmp_path / "71.png").unlink()
    images, rows, skipped = decode(items, SIZE)
    assert skipped == {UNREADABLE: ("70.png", "71.png")}
    assert images[:, 0, 0, 0].tolist() == rows.tolist() == [value for value in range(200) if value not in (70, 71)]


def test_an_error_that_is_no_broken_image_is_not_swallowed() -> None:
    def work(row: int) -> None:
        if row == 50:
            raise KeyError(row)

    with pytest.raises(KeyError):
        for_each_row(work, 100)
    with pytest.raises(ZeroDivisionError):
        decode([Item("x", 0, lambda: Image.new("L", (1 // 0, 1)))], SIZE)


def test_more_images_than_memory_is_meant_for_are_refused() -> None:
    require_memory(10, SIZE, limit=1920)
    with pytest.raises(BadData, match=r"11 images of 8x8 pixels take 0\.0 GiB .* use fewer .*\(at most 10 in all\)"):
        require_memory(11, SIZE, limit=1920)
    with pytest.raises(BadData, match=r"75000 images of 224x224 pixels take 10\.5 GiB of memory, more than 8 GiB"):
        require_memory(75_000, Preprocessing(224, 224))
    assert decode([], SIZE)[0].shape == np.empty((0, 8, 8, 3)).shape
