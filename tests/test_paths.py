"""What documents, comments and docstrings call a file, a folder or a module of ours is there."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests import names
from tests.names import PACKAGES, ROOT

DOCUMENTS = ("*.md", "Makefile", "pyproject.toml", "docs/**/*.md", "model_repository/*.md", "deploy")
SOURCES = (*PACKAGES, "tests", "deploy")
pytestmark = pytest.mark.slow  # all modules are read

OURS = "|".join((*PACKAGES, "tests"))
# Paths to a file of Python or a document; folders or files in backticks; modules, and names in them.
FILE = re.compile(r"(?<![\w/.$<{-])((?:[\w-]+/)*[\w-]+\.(?:py|md))\b(?![/*{])")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
QUOTED = re.compile(r"`([a-z_]+(?:/[a-z_]+)+/?)`")
RUN = re.compile(rf"python3? -m ((?:{OURS})[\w.]*)")
DOTTED = re.compile(rf"`((?:{OURS})(?:\.\w+)+)`")
COMMENT = re.compile(r"(?:^|\s)#[ :](.*)$", re.MULTILINE)
# Files of others, and names that are no modules.
OTHERS = {
    "image_client.py",
    "grpc_image_client.py",
    "model_repository/default",
    "serving.access",
    "benchmarks.studies.NAME",
    "benchmarks",
    "NAME.md",
}


@cache
def modules() -> dict[str, names.Module]:
    return names.read(SOURCES)


@cache
def tracked() -> tuple[str, ...]:
    """Files of the checkout; git knows which, and a copy without git has no others."""
    asked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    files = asked.stdout.split("\n")[:-1] if asked.returncode == 0 else [str(f.relative_to(ROOT)) for f in ROOT.rglob("*")]
    return tuple(file for file in files if (ROOT / file).is_file())


@cache
def folders() -> frozenset[str]:
    return frozenset(parent.as_posix() for file in tracked() for parent in Path(file).parents) - {"."}


def _documents() -> list[str]:
    return sorted(
        {
            found.relative_to(ROOT).as_posix()
            for pattern in DOCUMENTS
            for path in ROOT.glob(pattern)
            for found in ([path] if path.is_file() else path.rglob("*"))
            if found.is_file() and found.suffix not in {".py", ".pyc"}
        }
    )


@pytest.mark.parametrize("document", _documents())
def test_what_a_document_names_is_there(document: str) -> None:
    text = (ROOT / document).read_text()
    missing = _missing(text, document)
    if document.endswith(".md"):
        missing += [link for link in LINK.findall(text) if not ((ROOT / document).parent / link).exists()]
    assert not missing, f"{document} names what is not there: {', '.join(missing)}"


@pytest.mark.parametrize("package", SOURCES)
def test_what_docstrings_and_comments_name_is_there(package: str) -> None:
    missing = {
        f"{module.file}: {name}"
        for module in modules().values()
        if module.file.startswith(f"{package}/")
        for name in _missing(_prose(module), module.file)
    }
    assert not missing, "\n  ".join(["these name what is not there:", *sorted(missing)])


def test_the_house_names_every_folder() -> None:
    """The tree in docs/concepts/design.md, down to the third level; of other servers and studies, each on its own, only that there are."""
    drawn = set(_drawn((ROOT / "docs/concepts/design.md").read_text().partition("## The house")[2].partition("\nBeside it")[0]))
    inner = ("benchmarks/peers/", "benchmarks/studies/")
    there = {name for name in modules() if modules()[name].is_package and name.split(".")[0] in PACKAGES and name.count(".") < 3}
    assert drawn == {folder for name in there if not (folder := name.replace(".", "/")).startswith(inner)}


def test_no_folder_has_more_than_twenty_modules() -> None:
    counts = Counter(name.rpartition(".")[0] for name, module in modules().items() if not module.is_package)
    assert not {folder: count for folder, count in counts.items() if count > 20 and folder.split(".")[0] in PACKAGES}


def _drawn(tree: str) -> Iterator[str]:
    """Yield the folders of an indented list, each with those that it lies in."""
    above: list[str] = []
    for indent, name in re.findall(r"^( *)(\w+)/ ", tree, re.MULTILINE):
        above = [*above[: len(indent) // 2], name]
        yield "/".join(above)


def _prose(module: names.Module) -> str:
    """The docstrings and the comments of a module."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) or "" for node in module.nodes if isinstance(node, kinds)]
    return "\n".join([*docstrings, *COMMENT.findall((ROOT / module.file).read_text())])


def _missing(text: str, where: str) -> list[str]:
    missing = [name for name in FILE.findall(text) if not _is_file(name, where)]
    missing += [name for name in QUOTED.findall(text) if _looks_like_ours(name) and not _is_folder_or_module(name, where)]
    missing += [name for name in RUN.findall(text) if not _is_module(name.rstrip("."))]
    missing += [name for name in DOTTED.findall(text) if not _is_name(name)]
    return [name for name in missing if name not in OTHERS]


def _is_file(name: str, where: str) -> bool:
    """Whether a path leads to a file from the root, a package or where it is named; a bare name, to a file anywhere."""
    if "/" not in name:
        return any(file.rpartition("/")[2] == name for file in tracked())
    return any(f"{base}{name}" in tracked() for base in _bases(where))


def _bases(where: str) -> list[str]:
    return ["", *(f"{package}/" for package in (*PACKAGES, "tests")), *(f"{parent}/" for parent in Path(where).parents)]


def _looks_like_ours(name: str) -> bool:
    """Whether a quoted path begins with a folder of ours that has others in it."""
    first = name.split("/")[0]
    return any(folder.count("/") <= 1 and folder.rpartition("/")[2] == first for folder in folders())


def _is_folder_or_module(name: str, where: str) -> bool:
    name = name.rstrip("/")
    return any(f"{base}{name}" in folders() or f"{base}{name}.py" in tracked() for base in _bases(where))


def _is_module(name: str) -> bool:
    return name in modules() and (not modules()[name].is_package or f"{name}.__main__" in modules())


def _is_name(name: str) -> bool:
    """Whether a dotted name is a module, a name that is defined in one or listed by a package, or something in such a class."""
    owner, _, last = name.rpartition(".")
    if name in modules() or not owner:
        return name in modules()
    if owner not in modules():
        return _is_name(owner)
    defined = {each for each, _ in modules()[owner].defined()} | modules()[owner].imported.keys()
    return last in defined or any(name == last and module.startswith(owner) for module, name in _listed())


@cache
def _listed() -> set[names.Place]:
    return names.listed(modules())
