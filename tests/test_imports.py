"""The house: imports point one way, as a linter sees them, and what only a started Python shows: serving is free of torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_imports_point_one_way() -> None:
    """The rules are pyproject.toml's, and `make lint` holds them, too. What is broken is printed."""
    # In a process of its own: it sets up logging, and with that silences every logger that is there.
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stdout


def _loaded_after(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split())


def test_importing_all_of_serving_imports_no_torch() -> None:
    modules = [file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for file in (ROOT / "serving").rglob("*.py")]
    loaded = _loaded_after("import " + ", ".join(name.removesuffix(".__init__") for name in modules))
    assert "contract.plan" in loaded
    assert not loaded & {"torch", "timm", "torchvision", "onnxscript", "tuning", "exporter", "benchmarks", "espalier"}


def test_the_command_line_starts_without_heavy_imports() -> None:
    loaded = _loaded_after("import espalier.cli")
    assert not loaded & {"torch", "onnxruntime", "onnx", "tritonclient", "fastapi"}


@pytest.mark.parametrize("package", ["serving", "exporter", "espalier", "benchmarks"])
def test_onnx_runtime_is_told_to_report_nothing_before_it_is_loaded(package: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    code = f"import {package}, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    assert found.stdout.split() == ["1", "False"]
