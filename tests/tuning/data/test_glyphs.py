from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from contract.preprocessing import Preprocessing
from tuning.data.glyphs import GLYPH_TASKS, draw_deal, draw_pictures, glyph_task
from tuning.data.labelled import TaskData, fingerprint
from tuning.data.typefaces import LETTERS, Typeface, find_typefaces
from tuning.errors import BadData

SIZE = Preprocessing(height=16, width=16, interpolation="bilinear")


@pytest.fixture(scope="module")
def typefaces() -> tuple[Typeface, ...]:
    found = find_typefaces()
    assert len(found) >= 3  # matplotlib is there for the tests
    return found


@pytest.fixture(scope="module")
def task() -> Callable[[str], TaskData]:
    """Glyph tasks by name, each drawn once: a thousand pictures take a second."""
    return cache(lambda name: glyph_task(name, SIZE))


def test_typefaces_are_found_in_the_same_order_and_differ(typefaces: tuple[Typeface, ...]) -> None:
    assert typefaces == find_typefaces()
    assert len({face.digest for face in typefaces}) == len({face.family for face in typefaces}) == len(typefaces) <= 6


def test_files_that_are_no_fonts_of_letters_are_passed_over(tmp_path: Path, typefaces: tuple[Typeface, ...]) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    without = find_typefaces([])
    assert find_typefaces([tmp_path]) == without
    assert without[0].file is None  # Pillow's own is always there


def test_a_deal_is_balanced_and_its_parts_differ() -> None:
    deal = draw_deal(100, fonts=8, seed=0, part=1)
    for name, classes in (("letter", 26), ("font", 8), ("angle", 5), ("colour", 6)):
        counts = np.bincount(getattr(deal, name), minlength=classes)
        assert len(counts) == classes
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(deal.letter, draw_deal(100, 8, seed=0, part=2).letter)
    assert not np.array_equal(deal.letter, draw_deal(100, 8, seed=1, part=1).letter)


def test_pictures_show_what_was_dealt(typefaces: tuple[Typeface, ...]) -> None:
    deal = draw_deal(60, len(typefaces), seed=0, part=0)
    pictures = draw_pictures(deal, typefaces)
    assert pictures.shape == (60, 64, 64, 3)
    for row, picture in enumerate(pictures / 255):
        far = np.abs(picture - deal.paper[row]).sum(axis=2)
        assert np.allclose(picture[0, 0], deal.paper[row], atol=1 / 255)  # the letter does not reach the corner
        cover = far / np.abs(deal.ink[row] - deal.paper[row]).sum()
        assert 0.6 < cover.max() < 1.01
        assert np.allclose(picture, deal.paper[row] + cover[..., None] * (deal.ink[row] - deal.paper[row]), atol=2.5 / 255)
        assert round(colorsys.rgb_to_hsv(*deal.ink[row])[0] * 6) % 6 == deal.colour[row]


def test_upright_pictures_show_the_letter_the_font_the_size_and_the_place(typefaces: tuple[Typeface, ...]) -> None:
    deal = draw_deal(60, len(typefaces), seed=0, part=0)
    deal = replace(deal, turn=np.zeros(60))
    for row, picture in enumerate(draw_pictures(deal, typefaces) / 255):
        cover = np.abs(picture - deal.paper[row]).sum(axis=2) / np.abs(deal.ink[row] - deal.paper[row]).sum()
        y, x = np.nonzero(cover > 0.1)
        font = typefaces[deal.font[row]].font(int(deal.em[row]))
        left, top, right, bottom = font.getmask(LETTERS[deal.letter[row]]).getbbox()
        assert (np.ptp(x) + 1, np.ptp(y) + 1) == pytest.approx((right - left, bottom - top), abs=2)
        middle = ((x.min() + x.max()) / 2 - 31.5, (y.min() + y.max()) / 2 - 31.5)
        assert middle == pytest.approx(deal.shift[row], abs=1.5)
        ink = np.asarray(font.getmask(LETTERS[deal.letter[row]])).sum() / 255
        assert cover.sum() == pytest.approx(ink, rel=0.2, abs=10)


def test_letters_are_turned_by_the_angle(typefaces: tuple[Typeface, ...]) -> None:
    deal = draw_deal(40, 1, seed=0, part=0)
    deal = replace(deal, letter=np.full(40, LETTERS.index("I")))
    pictures = draw_pictures(deal, typefaces[:1])
    for row in range(40):  # a sans-serif I is a bar: its axis tells the angle
        cover = np.abs(pictures[row] / 255 - deal.paper[row]).sum(axis=2)
        y, x = np.indices(cover.shape)
        dy, dx = y - (cover * y).sum() / cover.sum(), x - (cover * x).sum() / cover.sum()
        lean = 0.5 * np.degrees(np.arctan2(2 * (cover * dx * dy).sum(), (cover * (dy**2 - dx**2)).sum()))
        assert lean == pytest.approx(deal.turn[row], abs=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", GLYPH_TASKS)
def test_tasks_have_all_classes(task: Callable[[str], TaskData], name: str) -> None:
    data = task(name)
    assert len(data.train) == (2000 if name == "letters" else 600)
    assert len(data.test) == 600
    assert data.train.images.shape[1:] == (16, 16, 3)
    assert set(data.train.targets.tolist()) == set(data.test.targets.tolist()) == set(range(len(data.labels)))


@pytest.mark.slow
def test_tasks_depend_on_the_seed_only(task: Callable[[str], TaskData]) -> None:
    first, again, other = map(fingerprint, (task("noisy"), glyph_task("noisy", SIZE, 0), glyph_task("noisy", SIZE, 1)))
    assert first == again != other


@pytest.mark.slow
def test_tasks_ask_other_questions_about_the_same_pictures(
    task: Callable[[str], TaskData], typefaces: tuple[Typeface, ...]
) -> None:
    letter, font, inverted, noisy = map(task, ("letter", "font", "inverted", "noisy"))
    assert np.array_equal(letter.train.images, font.train.images)
    assert np.abs(inverted.test.images.astype(int) - (255 - letter.test.images.astype(int))).max() <= 1
    assert np.array_equal(noisy.test.targets, letter.test.targets)
    assert not np.array_equal(noisy.test.images, letter.test.images)
    assert font.labels == tuple(face.family for face in typefaces)
    assert font.name.startswith(f"font ({len(typefaces)} fonts ")
    assert font.name != glyph_task("font", SIZE, typefaces=typefaces[:3]).name


def test_bad_requests_are_refused(typefaces: tuple[Typeface, ...]) -> None:
    with pytest.raises(BadData, match="Unknown glyph task 'size'; known are: letters, letter, font"):
        glyph_task("size", SIZE)
    with pytest.raises(BadData, match=r"task font needs at least 3 typefaces, but 2 can be found \(Aileron"):
        glyph_task("font", SIZE, typefaces=typefaces[:2])
    with pytest.raises(BadData, match=r"at least 1 typefaces, but 0 can be found \(none\)"):
        glyph_task("letter", SIZE, typefaces=())
