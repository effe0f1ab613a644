"""The house: imports point one way, and serving is free of torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("espalier", "benchmarks", "tuning", "exporter", "serving", "contract")
# For each package: what of ours it may import, by prefix.
ALLOWED = {
    "contract": ("contract",),
    "serving": ("serving", "contract"),
    "tuning": ("tuning", "contract"),
    "exporter": ("exporter", "contract"),
    "benchmarks": ("benchmarks", "serving", "exporter", "tuning", "contract"),
    "espalier": ("espalier", "benchmarks", "serving", "exporter", "tuning", "contract"),
}
# The exporter's door to torch and tuning; exporter/open_models.py opens it when it is needed.
TORCH_MODULES = ("exporter/torch/", "exporter/pricing/torch.py")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        relative = file.relative_to(ROOT).as_posix()
        allowed = ALLOWED[package] + (("tuning",) if relative.startswith(TORCH_MODULES) else ())
        for name in imports(file):
            if name.split(".")[0] in PACKAGES:
                assert any(name == prefix or name.startswith(f"{prefix}.") for prefix in allowed), f"{relative} imports {name}"


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
