"""Which pictures the demo takes for which backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.preprocessing import Preprocessing
from espalier.demo.tasks import choose_tasks
from tuning.data import emoji, sources

pytestmark = pytest.mark.slow  # imports torch, and deals the digits

SIZE = Preprocessing(height=16, width=16, interpolation="nearest")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where emoji are looked for, empty, and no npm to fetch them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    return sources.data_folder() / "emoji"


def test_digits_go_with_the_demos_own_backbone_and_with_networks_by_name(cache: Path) -> None:
    for backbone in (None, "resnet18", "espalier-demo/backbone.safetensors"):
        chosen = choose_tasks(backbone)
        assert [task.name for task in chosen.tasks] == ["parity", "size-class", "angle", "rotated", "inverted"]
        assert chosen.image_size is None
        data = chosen.load("parity", SIZE)
        assert (data.name, len(data.train), len(data.test)) == ("parity", 400, 500)


def test_without_npm_a_packages_backbone_gets_fewer_digits_and_a_sentence_says_so(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = choose_tasks("pypi:efficientnet_lite0")
    assert "emoji:google is fetched by npm, which is not installed" in capsys.readouterr().err
    assert chosen.pictures == "scikit-learn's digits"
    data = chosen.load("angle", SIZE)
    assert (len(data.train), len(data.test)) == (96, 120)


def test_emoji_that_are_there_are_what_a_packages_backbone_is_tuned_on(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = cache / f"google-{emoji.PACKAGES['google'].version}.1"
    for task in ("category", "places", "animals", "food", "skin"):
        for part, count in (("train", 80), ("test", 4)):
            for name in ("a", "b"):
                (made / task / part / name).mkdir(parents=True)
                for place in range(count):
                    Image.new("RGB", (2, 2), (place, 0, 0)).save(made / task / part / name / f"{place}.png")
    chosen = choose_tasks("pypi:efficientnet_lite0")
    assert chosen.pictures == "Google's emoji"
    for task in chosen.tasks:
        data = chosen.load(task.data, SIZE)
        assert (len(data.train), len(data.test)) == (96, 8)
        assert np.bincount(data.train.targets).tolist() == [48, 48]
