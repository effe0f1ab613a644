from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import pytest
from PIL import Image

from espalier.figures.errors import PlotError
from espalier.figures.files import write_plot
from espalier.figures.repository.draw import to_png
from espalier.figures.repository.layout import make_layout
from espalier.figures.repository.shapes import Layout
from espalier.figures.repository.svg import to_svg, tree_svg
from espalier.figures.repository.text import WEIGHTS
from tests.serving.nets import make_repository

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute


SVG = "{http://www.w3.org/2000/svg}"


def svg_texts(layout: Layout) -> list[str]:
    root = ElementTree.fromstring(to_svg(layout))
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def test_svg_keeps_text_as_text_and_says_the_same_every_time() -> None:
    layout = make_layout(make_repository())
    assert to_svg(layout) == to_svg(make_layout(make_repository()))
    assert to_png(layout) == to_png(layout)
    words = svg_texts(layout)
    assert set(layout.ends) <= set(words)
    assert {text.text for text in layout.texts} <= set(words)


def test_a_page_finds_what_it_lights_up_and_needs_no_style_that_its_policy_forbids() -> None:
    repository = make_repository()
    root = ElementTree.fromstring(tree_svg(repository))
    boxes = {element.get("data-segment") for element in root.iter(f"{SVG}g")}
    labels = {element.get("data-segment") for element in root.iter(f"{SVG}text")} - {None}
    assert boxes == labels == repository.segments.keys()
    assert {element.get("data-output") for element in root.iter(f"{SVG}text")} - {None} == repository.tasks.keys()
    tasks = [element.get("data-tasks", "").split() for element in root.iter(f"{SVG}path")]
    assert sorted(max(tasks, key=len)) == sorted(repository.tasks)  # from the input to the trunk
    assert {attribute for element in root.iter() for attribute in element.attrib}.isdisjoint({"style", "onclick", "href", "id"})


def test_odd_labels_are_drawn_as_they_are() -> None:
    repository = make_repository()
    task = replace(repository.tasks["probe"], labels=("<a&b>", "$x$ \x01", "\N{CJK UNIFIED IDEOGRAPH-732B}"))
    layout = make_layout(replace(repository, tasks={**repository.tasks, "probe": task}))
    assert "<a&b>, $x$  , \N{CJK UNIFIED IDEOGRAPH-732B}" in svg_texts(layout)
    assert to_png(layout)


def test_png_has_two_pixels_a_point(tmp_path: Path) -> None:
    layout = make_layout(make_repository())
    picture = Image.open(BytesIO(to_png(layout)))
    assert picture.size == pytest.approx((2 * layout.width, 2 * layout.height), abs=2)
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    write_plot(make_repository(), tmp_path / "tree.PNG", WEIGHTS)
    assert (tmp_path / "tree.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tree.jpg", r"tree\.jpg .* must end in \.svg or \.png"),
        ("tree", r"must end in \.svg or \.png"),
        ("missing/tree.svg", "missing is not a folder"),
        ("folder.svg", "Is a directory"),
    ],
)
def test_a_plot_that_cannot_be_written_is_one_sentence(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(PlotError, match=words) as caught:
        write_plot(make_repository(), tmp_path / name)
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))


def test_a_users_style_does_not_change_the_picture() -> None:
    layout = make_layout(make_repository())
    expected = to_png(layout)
    with mpl.rc_context({"text.color": "red", "font.size": 30, "patch.linewidth": 9, "font.sans-serif": ["Arial"]}):
        assert to_png(layout) == expected
        assert mpl.rcParams["font.size"] == 30
