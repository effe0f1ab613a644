"""The page in a real browser: what people do, and what they see."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from espalier.figures.repository.svg import tree_svg
from serving.client import control_model
from serving.server import BackgroundServer
from tests.serving.page.browsers import chromium, opened
from tests.serving.page.nets import write_repository

from playwright.sync_api import Browser, Page, expect  # isort: skip  # after `browsers`, which skips without it

pytestmark = pytest.mark.slow
TOKEN = "secret"
ASKED = ["animal", "areas", "marks", "size", "things", "vector"]
# What dropping a file does, of which a test cannot move the mouse.
DROP = """([name, type, content]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(content), (character) => character.charCodeAt(0))], name, {type}));
  for (const kind of ["dragover", "drop"]) {
    document.getElementById("image").dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
  }
}"""
PASTE = """() => {
  const data = new DataTransfer();
  data.items.add(new File(["no picture"], "pasted.png", {type: "image/png"}));
  document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
}"""


def png() -> bytes:
    """A wide picture, of which the crop cuts off a third, red on the left and blue on the right."""
    image = Image.new("RGB", (96, 64), "black")
    ImageDraw.Draw(image).rectangle([20, 8, 40, 55], fill="red")
    ImageDraw.Draw(image).rectangle([56, 8, 76, 55], fill="blue")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "repo"
    folder.mkdir()
    write_repository(folder, "vector")
    return folder


@pytest.fixture(scope="module")
def address(repo: Path, browser: Browser) -> Iterator[str]:
    with BackgroundServer(repo, http_port=0, grpc_port=0, threads=1, page=tree_svg, admin_token=TOKEN) as server:
        yield f"http://{server.http_address}/"


def drop(page: Page, name: str, content: bytes, kind: str = "image/png") -> None:
    page.evaluate(DROP, [name, kind, base64.b64encode(content).decode()])


def answer(page: Page, task: str) -> str:
    return page.inner_text(f".answer[data-task={task}]")


def test_a_dropped_picture_is_answered_by_every_kind_and_what_ran_is_lit_up(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        drop(page, "a picture's.png", png())
        expect(page.locator(".answer")).to_have_count(5)
        assert page.locator(".answer[data-task=animal] .label").first.inner_text() in ("cat", "emu")
        assert "of at least 0.9" in answer(page, "marks")
        assert "%" in answer(page, "size")
        expect(page.locator(".answer[data-task=areas] canvas")).to_have_js_property("width", 96)
        pixel = (
            "([x, y]) => [...document.querySelector('[data-task=areas] canvas').getContext('2d').getImageData(x, y, 1, 1).data]"
        )
        red, blue, clear, unknown = (page.evaluate(pixel, place) for place in ([30, 30], [66, 30], [48, 30], [2, 30]))
        assert (red[3], blue[3], clear[3]) == (140, 140, 0)
        assert red != blue
        assert unknown[0] == unknown[1] == unknown[2]  # grey stripes
        assert "not seen by the network (255)" in answer(page, "areas")
        box = page.locator("[data-task=things] .box").first
        assert box.inner_text() == "ship"
        left, width = page.evaluate("(b) => [b.style.left, b.style.width]", box.element_handle())
        assert (left, width) != ("", "")
        lit = page.eval_on_selector_all("#tree g.box.ran", "boxes => boxes.map((box) => box.dataset.segment).sort()")
        assert {*lit, "to-size"} == {
            "see",
            "to-animal",
            "to-areas",
            "to-marks",
            "to-size",
            "to-things",
        }  # or the canary of `size`
        assert page.locator("#tree g.box").count() == 8  # `plain` and `names` are there, and not lit
        assert page.locator("#tree text.ms").count() == len(lit)
        assert page.locator("#runs li").count() == 6
        assert all(" ms" in words for words in page.locator("#runs li").all_inner_texts())
        assert r"--data-binary '@a picture'\''s.png'" in page.inner_text("#request")
        assert "plain (a tensor: its values are over v2 only)" in page.inner_text("#others")


def test_a_picture_that_says_to_be_turned_is_shown_as_the_network_sees_it(browser: Browser, address: str) -> None:
    image, file = Image.new("RGB", (96, 48), "red"), io.BytesIO()
    exif = image.getexif()
    exif[0x112] = 6  # a quarter turn
    image.save(file, "JPEG", exif=exif)
    with opened(browser, address) as page:
        drop(page, "turned.jpg", file.getvalue(), "image/jpeg")
        expect(page.locator(".answer[data-task=areas] .picture")).to_have_css("aspect-ratio", "96 / 48")


def test_what_is_no_image_is_the_servers_sentence(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        page.evaluate(PASTE)
        expect(page.locator("#error")).to_have_text(
            "The body is not an image; send the bytes of one (PNG, JPEG, WebP, GIF or BMP)."
        )
        expect(page.locator("#preview")).to_be_hidden()
        drop(page, "good.png", png())
        expect(page.locator(".answer")).to_have_count(5)
        expect(page.locator("#error")).to_be_hidden()


def test_with_the_keyboard_alone_a_text_is_asked_about_and_tasks_are_watched(browser: Browser, address: str) -> None:
    with opened(browser, address, width=360) as page:

        def tab_to(selector: str) -> None:
            for _ in range(40):
                page.keyboard.press("Tab")
                if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                    assert outline != "none" or selector == "#file"  # its label has it
                    return
            raise AssertionError(f"Tab does not come to {selector}")

        tab_to("[name=about]")
        page.keyboard.press("ArrowRight")
        tab_to("#words")
        page.keyboard.type("the cat \N{GRINNING FACE} sat, dog")
        page.keyboard.press("Control+Enter")
        expect(page.locator("mark")).to_have_count(2)
        marked = page.eval_on_selector_all("mark", "marks => marks.map((mark) => mark.firstChild.textContent)")
        assert marked == ["cat", "dog"]
        page.keyboard.press("Shift+Tab")
        page.evaluate("document.activeElement.blur()")
        tab_to("#tab-try")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#watch")).to_be_visible()
        expect(page.locator("#numbers tr[data-task=names] td").nth(5)).not_to_have_text("0")
        expect(page.locator("#numbers tr.canary")).to_contain_text("25 %")


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_it_fits_narrow_and_wide_light_and_dark(browser: Browser, address: str, width: int, scheme: str) -> None:
    with opened(browser, address, width=width, scheme=scheme) as page:
        drop(page, "picture.png", png())
        expect(page.locator(".answer")).to_have_count(5)
        assert page.evaluate("document.documentElement.scrollWidth") == width  # what is wider scrolls by itself
        paper, ink = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
        assert (sum(map(int, paper[4:-1].split(","))) < sum(map(int, ink[4:-1].split(",")))) == (scheme == "dark")
        page.click("#tab-watch")
        expect(page.locator("#numbers tr[data-task=animal]")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_task_that_comes_while_the_page_is_open_is_offered_drawn_and_told(
    browser: Browser, address: str, repo: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    write_repository(whole)
    with opened(browser, address) as page:
        page.uncheck("input[value=animal]")
        for name in ("to-vector", "vector"):
            shutil.copytree(whole / name, repo / name)
        shutil.copy(whole / "all_tasks/config.pbtxt", repo / "all_tasks/config.pbtxt")
        control_model(address, "vector", "load", TOKEN)
        expect(page.locator("input[value=vector]")).to_be_checked()
        expect(page.locator("input[value=animal]")).not_to_be_checked()
        expect(page.locator("#tree g[data-segment=to-vector]")).to_have_count(1)
        expect(page.locator("#state")).to_have_text("8 tasks; vector came")
        page.click("#tab-watch")
        expect(page.locator("#deploys li").first).to_contain_text("vector 1 loaded in")
        expect(page.locator("#numbers tr[data-task=vector]")).to_be_visible()
        page.click("#tab-try")
        drop(page, "picture.png", png())
        expect(page.locator(".answer[data-task=vector]")).to_contain_text("12 numbers of the length 1")
        assert page.locator("[data-task=animal].answer").count() == 0
        control_model(address, "vector", "unload", TOKEN)
        expect(page.locator("input[value=vector]")).to_have_count(0)


def test_a_picture_of_the_tree_that_did_not_come_is_asked_for_again(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.route("**/page/tree.svg", lambda route: route.abort(), times=1)
    page.goto(address)
    expect(page.locator("#tree svg")).to_be_visible()
    expect(page.locator("#state.error")).to_have_count(0)
    context.close()
