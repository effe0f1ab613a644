from __future__ import annotations

from io import BytesIO

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from PIL import Image

from espalier.figures.drawing import render_figure


def small() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.text(0.1, 0.5, "$5 for \N{CJK UNIFIED IDEOGRAPH-732B}$")
    return figure


def test_a_png_has_its_resolution_and_says_what_it_is() -> None:
    picture = Image.open(BytesIO(render_figure(small, "png", png_dpi=50, title="Small")))
    assert picture.size == (100, 50)
    assert {key: picture.info[key] for key in ("Title", "Software")} == {"Title": "Small", "Software": "espalier"}
    assert "Title" not in Image.open(BytesIO(render_figure(small, "png", png_dpi=50))).info


def test_an_svg_keeps_its_text_and_has_no_date() -> None:
    picture = render_figure(small, "svg", png_dpi=50, title="Small").decode()
    assert "<title>Small</title>" in picture
    assert ">$5 for \N{CJK UNIFIED IDEOGRAPH-732B}$</text>" in picture
    assert "<dc:date>" not in picture
    assert "<title>" not in render_figure(small, "svg", png_dpi=50).decode()


@pytest.mark.parametrize("file_format", ["svg", "png"])
def test_a_users_settings_neither_change_the_picture_nor_are_changed(file_format: str) -> None:
    expected = render_figure(small, file_format, png_dpi=50)
    with mpl.rc_context({"font.size": 30, "text.color": "red", "svg.fonttype": "path"}):
        assert render_figure(small, file_format, png_dpi=50) == expected
        assert (mpl.rcParams["font.size"], mpl.rcParams["text.color"]) == (30, "red")
