"""The chart's values are checked, documented, and of this version of the program."""

from __future__ import annotations

import contextlib
import re
import tomllib
from typing import Any

import pytest
import typer

from espalier.commands.options.sizes import parse_size
from tests.deploy.manifests import DEPLOY, ROOT, load

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]


def test_values_and_schema_name_the_same_things() -> None:
    schema = load("chart/values.schema.json")

    def compare(values: Any, part: Any, place: str) -> None:
        if "properties" not in part:
            return
        assert values.keys() == part["properties"].keys() - {"global"}, place
        assert part["additionalProperties"] is False, place
        for key, value in values.items():
            compare(value, part["properties"][key], f"{place}.{key}")

    compare(load("chart/values.yaml"), schema, "values")


@pytest.mark.parametrize(
    ("size", "taken"), [("500M", True), ("1.5GB", True), ("2GiB", True), ("lots", False), ("3 apples", False)]
)
def test_the_schema_takes_the_sizes_that_the_program_takes(size: str, taken: bool) -> None:
    pattern = load("chart/values.schema.json")["properties"]["router"]["properties"]["memoryLimit"]["pattern"]
    assert (re.search(pattern, size) is not None) == taken
    with contextlib.nullcontext() if taken else pytest.raises(typer.BadParameter):
        assert parse_size(size) > 0


def test_every_value_is_in_the_documentation() -> None:
    page = (ROOT / "docs/guides/kubernetes.md").read_text()
    for part, values in load("chart/values.yaml").items():
        names = [f"{part}.{key}" for key in values] if isinstance(values, dict) else [part]
        assert [name for name in names if f"`{name}`" in page] == names


def test_versions_and_pins_are_the_projects() -> None:
    chart, makefile = load("chart/Chart.yaml"), (ROOT / "Makefile").read_text()
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)
    for file in ("Dockerfile", "baked.Dockerfile", "compose.yaml", "kserve/runtime.yaml", "chart/values.yaml"):
        assert set(re.findall(r"\bespalier:(\d[\w.]*)", (DEPLOY / file).read_text())) == {VERSION}, file
    (pin,) = re.findall(r"uv==[\d.]+", (DEPLOY / "Dockerfile").read_text())
    assert f"UV_PIN := {pin}\n" in makefile
    texts = [file for file in DEPLOY.rglob("*.*") if file.suffix != ".pyc"]
    tritons = {match for file in texts for match in re.findall(r"tritonserver:([\w.-]+)", file.read_text())}
    assert tritons == {"24.10-py3"}


def test_the_image_is_built_from_what_its_context_holds() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    packages = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert kept == packages | {"pyproject.toml", "constraints.txt", PROJECT["project"]["readme"], "LICENSE"}
    assert all((ROOT / name).exists() for name in kept)
