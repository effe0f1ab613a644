"""What the command line has Python has, by the same words, and the other way round: differences are on the lists here, on purpose."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import typer

import espalier
from espalier.cli import app
from espalier.client import AsyncClient, Client
from espalier.local import LocalRepository
from exporter.sources.references import InputOptions
from serving.engines.embedded import EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions
from serving.options import ServerOptions

# Options that are a part of an argument in Python, or have another name there.
RENAMED = {
    **dict.fromkeys(("task", "task_model", "name"), "tasks"),
    **dict.fromkeys(("preprocess", "image_size", "mean", "std"), "inputs"),
    **dict.fromkeys(("url", "token_file"), "servers"),
    "repo": "repository",
    "kind": "kinds",
    "max_segments": "cuts",
}
# Where these are left out, the command line says it by a value that stands for it.
OTHER_DEFAULTS = {"max_drop", "cuts"}
# Of `serve`: where each option is in Python; "": nowhere, because whoever calls it has a log of their own.
SERVED = {
    "repo": "repository",
    "admin_token_file": "admin_token",
    "drain_s": "grace_s",
    "limit": "limits",
    **{name: f"options.{name}" for name in ("instances", "max_queue_rows", "max_batch_rows", "max_batch_elements", "learn_rows")},
    **{name: f"options.sessions.{name}" for name in ("provider", "spin", "precision")},
    "engine": "options.sessions.runtime",
    "memory_limit": "options.sessions.memory_limit_bytes",
    "cache_limit": "options.sessions.cache_limit_bytes",
    "feature_cache": "feature_cache_bytes",
    "segment_cache": "options.sessions.cache_folder",
    "verify_segments": "options.sessions.record_hashes",
    **dict.fromkeys(("triton_url", "triton_send_files", "triton_shared_memory", "triton_wait_s"), "make_engine"),
    **dict.fromkeys(("log_format", "log_level"), ""),
}
# What the command line decides itself, or leaves as it is.
ONLY_PYTHON = {
    *("max_body_bytes", "observers", "rows_record", "configs", "plain"),
    *("options.rows_file", "options.checked_file", "options.bundles", "options.sessions.device"),
}
# Of `infer`: what it asks, and what it prints.
ASKED = {"image": "image", "text": "text", "text_file": "text", "task": "tasks", "array": "", "url": "", "as_json": ""}


def options(command: str) -> dict[str, Any]:
    """The parameters of a command, with their defaults."""
    found: Any = typer.main.get_command(app)
    return {parameter.name: parameter.default for parameter in found.commands[command].params}


def arguments(function: Callable[..., object]) -> dict[str, Any]:
    """The parameters of a function, with their defaults."""
    found = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default for parameter in found if parameter.name not in ("self", "options")}


@pytest.mark.parametrize("command", ["export", "add", "deploy", "remove"])
def test_what_writes_repositories_has_the_same_words(command: str) -> None:
    shell, python = options(command), arguments(getattr(espalier, command))
    assert {RENAMED.get(name, name) for name in shell} == python.keys()
    both = shell.keys() & python.keys() - {*RENAMED.values()} - OTHER_DEFAULTS
    wanted = {name: python[name] for name in both if python[name] is not inspect.Parameter.empty}
    assert {name: shell[name] for name in wanted} == wanted


def test_what_images_become_is_said_by_the_same_words() -> None:
    assert {one.name for one in fields(InputOptions)} == {name for name, target in RENAMED.items() if target == "inputs"}
    assert [options("export")[one.name] for one in fields(InputOptions)] == [one.default for one in fields(InputOptions)]


def test_serving_has_the_same_options() -> None:
    parts = {"": ServerOptions, "options.": EngineOptions, "options.sessions.": SessionStoreOptions}
    python = {f"{prefix}{one.name}" for prefix, kind in parts.items() for one in fields(kind)} | {*arguments(espalier.serve)}
    python -= {"options", "options.sessions", "options.sessions.threads"}  # `threads` is a short way to say the last one
    shell = {SERVED.get(name, name) for name in options("serve")} - {""}
    assert shell <= python
    assert python - shell == ONLY_PYTHON
    assert arguments(espalier.open).keys() == {"path", "pad_lengths"}  # and `options`, how it is computed
    plain = {name: value for name, value in arguments(espalier.serve).items() if name != "repository"}
    assert plain == {name: options("serve")[name] for name in plain}


def test_questions_have_the_same_words() -> None:
    shell = {ASKED.get(name, name) for name in options("infer")} - {""}
    assert shell == arguments(Client.predict).keys()
    about_images = shell - {"image", "text", "truncate"}
    for method, others in (
        (Client.predict_many, {"images"}),
        (LocalRepository.predict, {"images"}),
        (LocalRepository.predict_folder, {"folder", "out", "progress"}),
        (LocalRepository.predict_texts, {"texts", "truncate"}),
    ):
        assert arguments(method).keys() == about_images | others, method


def test_both_clients_have_the_same_methods() -> None:
    public = {name for name in vars(Client) if not name.startswith("_")}
    assert {name for name in vars(AsyncClient) if not name.startswith("_")} == public
    for name in public - {one.name for one in fields(Client)}:
        assert arguments(getattr(AsyncClient, name)) == arguments(getattr(Client, name))
