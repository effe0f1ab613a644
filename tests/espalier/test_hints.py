"""The library's sentences name no option; the command line adds which one helps."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from contract.errors import EspalierError, NoCanary, OutputExists
from espalier.hints import _HINTS, with_hint
from exporter.errors import ContradictsTask, FolderGiven, NeedsBackbone, UnknownInput
from tuning.errors import UnusableDevice

ROOT = Path(__file__).parents[2]
LIBRARY = ("contract", "tuning", "exporter", "serving")
OURS = re.compile(r"(?<![\w-])--(?!model-control-mode\b)[a-z]")  # and one of Triton's


class UnknownBirdFolder(FolderGiven):
    """A class without a hint of its own."""


def raised(file: Path) -> Iterator[str]:
    """The texts in what is raised, and in the modules that hold nothing but errors."""
    tree = ast.parse(file.read_text())
    nodes = (
        [tree]
        if file.name == "errors.py" or file.parent.name == "errors"
        else [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    )
    for node in nodes:
        yield from (part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str))


def test_no_sentence_of_the_library_names_an_option() -> None:
    found = {
        f"{file.relative_to(ROOT)}: {text}"
        for package in LIBRARY
        for file in (ROOT / package).rglob("*.py")
        for text in raised(file)
        if OURS.search(text)
    }
    assert not found


def test_hints_are_about_errors_that_there_are() -> None:
    files = [file for package in LIBRARY for file in (ROOT / package).rglob("*.py")]
    modules = [file.relative_to(ROOT) for file in files if file.name == "errors.py" or file.parent.name == "errors"]
    known = {
        name: value
        for module in modules
        for name, value in vars(import_module(".".join(module.with_suffix("").parts))).items()
        if isinstance(value, type) and issubclass(value, EspalierError)
    }
    assert _HINTS.keys() <= known.keys()


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OutputExists(Path("repo")), "Give --force to replace it."),
        (NoCanary("birds"), "`espalier deploy --canary` makes one."),
        (ContradictsTask("image_size", "32", "birds", "64"), "Leave out --image-size."),
        (UnknownInput("net", ["image_size", "mean"]), "Give --image-size and --mean."),
        (NeedsBackbone("birds", Path("b.pth")), "Give --backbone, or --task birds=NETWORK@b.pth."),
        (UnusableDevice("tpu", "no GPU"), "Give it with --device."),
        (UnknownBirdFolder(Path("birds")), "All models of a folder are given with --tasks."),
        (EspalierError("Something is wrong."), ""),
    ],
)
def test_a_hint_follows_the_sentence(error: EspalierError, hint: str) -> None:
    assert with_hint(error) == f"{error} {hint}".strip()
