"""`espalier serve --engine openvino`: what goes with it, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from contract.repository import Repository
from espalier.commands.serve import serve
from espalier.hints import with_hint
from serving.engines.sessions.runtime import Precision, RuntimeKind
from serving.errors import PrecisionUnavailable


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--precision", "bf16"], "--precision: is of use with --engine openvino only"),
        (["--engine", "openvino", "--provider", "cpu"], "--provider: is of use with --engine embedded only"),
        (["--engine", "openvino", "--triton-url", "grpc://h"], "--triton-url: is of use with --engine triton only"),
        (["--engine", "openvino", "--precision", "int4"], "'int4' is not one of 'auto', 'fp32', 'bf16'"),
    ],
)
def test_options_of_other_engines_are_refused(options: list[str], sentence: str, repository: Repository) -> None:
    app = typer.Typer()
    app.command()(serve)
    run = CliRunner().invoke(app, [str(repository.path), *options], env={"COLUMNS": "200"})
    assert run.exit_code == 2
    assert sentence in " ".join(run.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "runtime", "precision"),
    [
        ([], RuntimeKind.onnxruntime, Precision.fp32),
        (["--engine", "openvino"], RuntimeKind.openvino, Precision.fp32),
        (["--engine", "openvino", "--precision", "auto", "--threads", "1"], RuntimeKind.openvino, Precision.auto),
    ],
)
def test_what_was_asked_for_reaches_the_engine(
    options: list[str], runtime: RuntimeKind, precision: Precision, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("serving.server.run", lambda path, **chosen: given.update(chosen, path=Path(path)))
    app = typer.Typer()
    app.command()(serve)
    run = CliRunner().invoke(app, [str(repository.path), *options])
    assert run.exit_code == 0, run.output
    assert (given["options"].sessions.runtime, given["options"].sessions.precision) == (runtime, precision)
    assert given["make_engine"] is None
    assert given["plain"]


def test_a_precision_that_the_processor_lacks_names_the_option() -> None:
    assert with_hint(PrecisionUnavailable("bf16")).endswith("choose fp32 or auto. Give it with --precision.")
