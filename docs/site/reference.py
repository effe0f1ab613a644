"""Reference pages that are made from the code: the command line, the Python API, errors."""

from __future__ import annotations

import html
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contract.errors import EspalierError
from serving.protocol.status import wire_codes

# Beside the names of `espalier`: what its functions return and take.
_BESIDE = (
    "espalier.local:LocalRepository",
    "espalier.running_server:RunningServer",
    "exporter.sources.references:InputOptions",
    "exporter.sharing.choose:CutOptions",
    "serving.engines.embedded:EngineOptions",
)
_INTERNAL = 500
_ERRORS = ("contract.errors", "exporter.errors", "serving.errors")


def write_reference(folder: Path) -> None:
    """Write commands.md, api.md and errors.md into `folder`."""
    _write_commands(folder / "commands.md")
    (folder / "api.md").write_text(api_page(), encoding="utf-8")
    (folder / "errors.md").write_text(errors_page(), encoding="utf-8")


def _write_commands(file: Path) -> None:
    """By typer's own program, which walks through commands and options."""
    program = [sys.executable, "-m", "typer", "espalier.cli", "utils", "docs", "--name", "espalier", "--title", "Commands"]
    subprocess.run([*program, "--output", str(file)], check=True, capture_output=True, text=True)
    text = re.sub(
        r"<span [^>]*>(.*?)</span>", r"`\1`", file.read_text(encoding="utf-8")
    )  # examples, which are grey on a terminal
    file.write_text(re.sub(r"`[^`]*`", lambda code: html.unescape(code[0]), text), encoding="utf-8")


def api_page() -> str:
    """Return the page of `import espalier`: each name with its signature and its docstring, classes with their methods."""
    espalier = importlib.import_module("espalier")
    parts = ["# Python", "Made from the code. How to use it, with examples that run: [From Python](../guides/python.md)."]
    for name in espalier.__all__:
        parts += _described(f"espalier.{name}", getattr(espalier, name))
    parts.append("## What these return and take")
    for place in _BESIDE:
        module, name = place.split(":")
        parts += _described(f"{module}.{name}", getattr(importlib.import_module(module), name), "###")
    return "\n\n".join(parts) + "\n"


def errors_page() -> str:
    """Return the page of errors: each class with what clients get over HTTP and gRPC, and what it says."""
    parts = [
        "# Errors",
        "Made from the code. Each error is an `EspalierError` with one sentence that names what is wrong and what would be right. "
        "On the command line it ends with exit code 2. Over HTTP and gRPC it has the codes of its row. Errors without codes do not reach "
        "clients; one that did would be 500 / INTERNAL.",
    ]
    for module in _ERRORS:
        rows = [_error_row(error) for error in _errors_of(module)]
        parts.append("\n".join([f"## {module}", "", "| error | HTTP | gRPC | when |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _described(title: str, thing: Any, level: str = "##") -> Iterator[str]:
    yield f"{level} {title}"
    yield f"```python\n{title.rpartition('.')[2]}{_signature(thing)}\n```"
    yield _text(thing)
    if inspect.isclass(thing):
        for name, method in _methods(thing):
            yield f"**`{name}`**`{_signature(method)}`"
            yield _text(method)


def _methods(thing: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, found in inspect.getmembers(thing):
        method = found.fget if isinstance(found, property) else found
        if not name.startswith("_") and inspect.isfunction(method) and method.__doc__:
            yield name, method


def _signature(thing: Any) -> str:
    """Return a signature as it is written, without the name `self` and the quotes of annotations that are not loaded."""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(thing)))
    return text.replace("(self, ", "(").replace("(self)", "()").replace("mappingproxy({})", "{}")


def _text(thing: Any) -> str:
    return inspect.cleandoc(inspect.getdoc(thing) or "").replace("<", "\\<").replace("*", "\\*")


def _errors_of(module: str) -> list[type[EspalierError]]:
    found = {value for value in vars(importlib.import_module(module)).values() if inspect.isclass(value)}
    own = [error for error in found if issubclass(error, EspalierError) and error.__module__.startswith(module)]
    return sorted(own, key=lambda error: error.__name__)


def _error_row(error: type[EspalierError]) -> str:
    codes = wire_codes(error.__new__(error))
    shown = ("", "") if codes.http == _INTERNAL else (str(codes.http), codes.grpc.name)
    when = (inspect.getdoc(error) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|").replace("<", "\\<")
    return f"| `{error.__name__}` | {shown[0]} | {shown[1]} | {when} |"
