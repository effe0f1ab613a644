"""The demo on a package's weights and on emoji, all of it: from an npm that hands out a made-up archive to the last table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contract.repository import read_repository
from tests.emoji import entry, make_known, use_npm
from tests.espalier.test_cli import espalier
from tests.packages import install_made_up
from tuning.network.checkpoint import load_task

pytestmark = pytest.mark.slow

KINDS = {
    "Food & Drink": ("drink", "food-fruit"),
    "Travel & Places": ("time", "transport-air"),
}
MORE = [
    entry(f"1F6{row}{column}-{place}", category, kind)
    for row, (category, kinds) in enumerate(KINDS.items())
    for column, kind in enumerate(kinds)
    for place in range(4)
]


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a made-up npm keeps what it was asked for."""
    (tmp_path / "there.tgz").write_bytes(make_known(monkeypatch, MORE)["google"])
    script = f'echo "$@" >> {tmp_path}/asked; cp {tmp_path}/there.tgz "$4"/emoji-datasource-google-16.0.0.tgz'
    use_npm(tmp_path, monkeypatch, script)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "asked"


def test_the_demo_on_emoji_runs_to_its_end(npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_made_up(tmp_path, monkeypatch, "test_efficientnet")
    run = espalier("demo", "--backbone", "pypi:made_up", "--out", "demo", "--epochs", "1", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "npm fetches them" in run.stderr
    assert len(npm.read_text().splitlines()) == 1
    differences = [float(value) for value in re.findall(r"│ +(\de[-+]\d+) │", run.stdout)]
    assert len(differences) == 9
    assert max(differences) < 1e-4
    for words in ("Google's emoji, 96 pixels", "SubTuning", "Composed segments equal", "separate networks", "Done in"):
        assert words in run.stdout
    repository = read_repository(tmp_path / "demo" / "repository")
    assert {name: task.labels for name, task in repository.tasks.items()} == {
        "category": ("animals-nature", "food-drink", "people-body", "travel-places"),
        "places": ("time", "transport-air"),
        "animals": ("animal-bird", "animal-bug", "animal-mammal", "animal-marine", "plant-flower", "plant-other"),
        "food": ("drink", "food-fruit"),
        "skin": ("dark", "light", "medium", "medium-dark", "medium-light", "none"),
    }
    assert len({task.steps[0] for task in repository.tasks.values()}) == 1
    (segment,) = {task.steps[0].segment for task in repository.tasks.values()}
    assert repository.segments[segment].inputs[0].shape == (96, 96, 3)
    assert load_task(tmp_path / "demo" / "checkpoints" / "animals.safetensors").backbone.weights.startswith(
        "pypi:made_up, SHA-256 "
    )
