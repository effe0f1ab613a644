"""The wheel holds what it should and works outside the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("espalier", "tuning", "exporter", "serving", "contract", "benchmarks")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.suffix in (".py", ".txt", ".json") or file.name == "py.typed" or file.parent == ROOT / "serving/page/static"
        if ROOT / "benchmarks/studies" not in file.parents
    }
    assert names == expected
    assert {"serving/page/static/index.html", "serving/page/static/main.js", "serving/page/static/style.css"} <= names


def test_it_carries_its_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert any(name.endswith("licenses/LICENSE") for name in names)
        assert "espalier = espalier.cli:main" in archive.read(entry_points).decode()


def test_it_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    # -P and an empty folder: neither the checkout nor the current folder is importable, only the unpacked wheel.
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); sys.argv = ['espalier', 'version']"
    code += "; import espalier.cli, serving.server; print(espalier.__file__, serving.__file__); espalier.cli.main()"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    places, version = run.stdout.split("\n")[:2]
    assert all(place.startswith(str(tmp_path / "site")) for place in places.split())
    assert version in wheel.name
