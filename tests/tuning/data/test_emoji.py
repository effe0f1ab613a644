"""Emoji out of an npm package become folders of classes, with variants of a picture on one side of the split."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.preprocessing import Preprocessing
from tests.emoji import entries, make_known, use_npm
from tuning.data.emoji import EMOJI_TASKS, PACKAGES, group_of, list_emoji
from tuning.data.sources import DataOptions, load_data
from tuning.errors import BadData, NotDownloaded

SIZE = Preprocessing(height=16, width=16, interpolation="nearest")


@pytest.fixture(autouse=True)
def archives(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    return make_known(monkeypatch)


def put(folder: Path, archives: dict[str, bytes], *vendors: str) -> DataOptions:
    (folder / "emoji").mkdir(exist_ok=True)
    for vendor in vendors:
        (folder / "emoji" / PACKAGES[vendor].archive).write_bytes(archives[vendor])
    return DataOptions(folder)


@pytest.mark.slow
def test_classes_and_split_come_from_what_the_package_says(tmp_path: Path, archives: dict[str, bytes]) -> None:
    data = load_data("emoji:google/animals", SIZE, put(tmp_path, archives, "google"))
    assert data.name == "emoji:google/animals"
    assert data.labels == ("animal-bird", "animal-bug", "animal-mammal", "animal-marine", "plant-flower", "plant-other")
    assert (len(data.train), len(data.test)) == (6 + 5 * 3, 2 + 5 * 1)  # the ninth bird is not drawn by Google
    assert not data.skipped
    folder = tmp_path / "emoji" / "google-16.0.0.1"
    assert (folder / "README.md").read_text() == "whose pictures these are"
    assert not list(tmp_path.rglob("out.png"))
    assert load_data("emoji:google", SIZE, DataOptions(tmp_path)).name == "emoji:google/category"


def test_what_is_transparent_is_white(tmp_path: Path, archives: dict[str, bytes]) -> None:
    data = load_data("emoji:google/animals", SIZE, put(tmp_path, archives, "google"))
    assert data.train.images[0, 0, 0].tolist() == [255, 255, 255]
    assert data.train.images[0, 8, 8].tolist() == [0, 0, 0]


@pytest.mark.slow
def test_variants_of_a_picture_are_on_one_side_in_every_task_and_for_both_vendors(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    put(tmp_path, archives, "google", "twitter")
    sides: dict[str, set[str]] = {}
    for vendor in PACKAGES:
        for task in ("category", "skin"):
            load_data(f"emoji:{vendor}/{task}", SIZE, DataOptions(tmp_path))
            for file in (tmp_path / "emoji" / f"{vendor}-16.0.0.1" / task).rglob("1f*-200d-*.png"):
                role = file.stem.split("-")[2]
                sides.setdefault(role, set()).add(file.relative_to(tmp_path / "emoji").parts[2])
    assert {len(found) for found in sides.values()} == {1}
    assert sorted(side for (side,) in sides.values()) == ["test"] * 2 + ["train"] * 6
    assert len(load_data("emoji:google/skin", SIZE, DataOptions(tmp_path)).test) == 2 * 3 * 6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1F3C3", "1F3C3-1F3FB-200D-2640-FE0F-200D-27A1-FE0F"),  # a person runs; a woman runs to the right
        ("1F468-200D-1F373", "1F469-1F3FF-200D-1F373"),  # cooks
        ("1F468-200D-1F469-200D-1F466", "1F469-200D-1F469-200D-1F467"),  # families of three
        ("1F46B", "1F9D1-200D-1F91D-200D-1F9D1"),  # two hold hands
        ("1F48F", "1F469-200D-2764-FE0F-200D-1F48B-200D-1F468"),  # kisses
        ("1F478", "1F934"),  # princess and prince
    ],
)
def test_variants_are_known_by_their_code_points(one: str, other: str) -> None:
    assert group_of(one.split("-")) == group_of(other.split("-"))


def test_signs_that_are_nothing_but_modifiers_elsewhere_are_pictures_of_their_own() -> None:
    groups = {group_of([*codes.split("-")]) for codes in ("2640-FE0F", "2642-FE0F", "27A1-FE0F", "1F3FB", "1F40D", "1F40E")}
    assert len(groups) == 6


def test_a_picture_of_another_vendor_is_left_out() -> None:
    listed = [each.file for each in list_emoji(entries(), "google")]
    assert "1f49f.png" not in listed
    assert "1f49f.png" in [each.file for each in list_emoji(entries(), "twitter")]


def test_it_is_fetched_once_by_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archives: dict[str, bytes]) -> None:
    (tmp_path / "there.tgz").write_bytes(archives["google"])
    script = f'echo "$@" >> {tmp_path}/asked; cp {tmp_path}/there.tgz "$4"/emoji-datasource-google-16.0.0.tgz'
    use_npm(tmp_path, monkeypatch, script)
    for _ in range(2):
        load_data("emoji:google/animals", SIZE, DataOptions(tmp_path / "data", download=True))
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert asked.startswith("pack emoji-datasource-google@16.0.0 --pack-destination ")
    assert [file.name for file in (tmp_path / "data" / "emoji").iterdir()] == ["google-16.0.0.1"]


def test_what_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archives: dict[str, bytes]) -> None:
    with pytest.raises(
        NotDownloaded, match=r"^emoji:google is not in .*emoji \(neither prepared nor as emoji-datasource-.*tgz\); have"
    ):
        load_data("emoji:google", SIZE, DataOptions(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    by_hand = r"put emoji-datasource-google-16.0.0.tgz, which `npm pack emoji-datasource-google@16.0.0` makes elsewhere, into .*/emoji\."
    with pytest.raises(
        BadData, match=rf"^emoji:google is fetched by npm, which is not installed; install Node.js, or {by_hand}$"
    ):
        load_data("emoji:google", SIZE, DataOptions(tmp_path, download=True))
    said = "npm error code E404\\nnpm error 404 Not Found - GET https://registry\\nnpm error A complete log of this run"
    use_npm(tmp_path, monkeypatch, f"printf '{said}' >&2; exit 1")
    with pytest.raises(BadData, match=rf"by npm \(404 Not Found - GET https://registry\); try again, or {by_hand}$"):
        load_data("emoji:google", SIZE, DataOptions(tmp_path, download=True))


def test_another_archive_is_refused(tmp_path: Path, archives: dict[str, bytes]) -> None:
    put(tmp_path, {"google": archives["twitter"]}, "google")
    with pytest.raises(BadData, match=r"tgz is not emoji-datasource-google 16.0.0: its SHA-512 is another; remove it"):
        load_data("emoji:google", SIZE, DataOptions(tmp_path))
    assert [file.name for file in (tmp_path / "emoji").iterdir()] == [PACKAGES["google"].archive]


@pytest.mark.parametrize("name", ["apple", "google/birds", "", "google/animals/more"])
def test_an_unknown_name_is_told_the_known_ones(tmp_path: Path, name: str) -> None:
    known = rf"VENDOR or VENDOR/TASK, of google, twitter and {', '.join(EMOJI_TASKS)}\."
    with pytest.raises(BadData, match=known):
        load_data(f"emoji:{name}", SIZE, DataOptions(tmp_path))
