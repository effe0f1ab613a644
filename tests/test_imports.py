"""The house: imports point one way, as a linter sees them, and what only a started Python shows: serving is free of torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exporter.graphs import Net
from tests.serving.nets import write_repository

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
    modules.remove("serving.engines.onnxruntime.merged_model")  # makes graphs; the others import it when there is one to make
    loaded = _loaded_after("import " + ", ".join(name.removesuffix(".__init__") for name in modules))
    assert "contract.plan" in loaded
    assert not loaded & {"torch", "timm", "torchvision", "onnxscript", "tuning", "exporter", "benchmarks", "espalier"}
    assert not loaded & {"transformers", "scipy", "sklearn", "matplotlib", "onnx", "pandas"}


def test_the_command_line_starts_without_heavy_imports() -> None:
    loaded = _loaded_after("import espalier.cli")
    assert not loaded & {"torch", "onnxruntime", "onnx", "tritonclient", "fastapi"}


COMMANDS = """
import sys
from espalier.cli import main
for line in sys.stdin.read().splitlines():
    sys.argv = ["espalier", *line.split()]
    try:
        main()
    except SystemExit as end:
        print("ended", end.code, file=sys.stderr)
print(*sys.modules, file=sys.stderr)
"""
HEAVY = {"torch", "timm", "torchvision", "transformers", "sklearn", "scipy", "matplotlib", "pandas", "fastapi", "uvicorn", "grpc"}
LIGHT = """--help
version
tune --help
tune fit --help
export --help
serve --help
bench list
infer --url http://127.0.0.1:1 --text hello
inspect repo
inspect repo --json
gc repo
undeploy colour --from repo
remove repo parity
rollback probe --in repo
promote probe --in repo
tune fit --backbone resnet18 --data none --blocks layer4 --out /nowhere/a.safetensors
"""


def _after_commands(lines: str, folder: Path) -> tuple[list[str], set[str]]:
    """Return how the commands ended, and what was loaded after all of them."""
    command = [sys.executable, "-c", COMMANDS]
    found = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, cwd=folder).stderr.splitlines()
    return [line.split()[1] for line in found if line.startswith("ended ")], {*found[-1].split()}


def test_commands_that_need_no_network_load_nothing_heavy(tmp_path: Path) -> None:
    write_repository(tmp_path / "repo")
    ends, loaded = _after_commands(LIGHT, tmp_path)
    assert ends == ["0", "0", "0", "0", "0", "0", "0", "2", "0", "0", "0", "0", "0", "2", "2", "2"]
    assert {"typer", "google.protobuf", "espalier.cli"} <= loaded
    assert not loaded & {*HEAVY, "onnxruntime", "onnx"}


def test_an_export_of_onnx_files_loads_no_torch(tmp_path: Path) -> None:
    for name, head in (("late", 4), ("probe", 5)):
        Net(head=head).save(tmp_path / f"{name}.onnx")
    ends, loaded = _after_commands("export --tasks . --out repo\ndiff late.onnx probe.onnx", tmp_path)
    assert ends == ["0", "0"]
    assert "onnxruntime" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("package", ["serving", "exporter", "espalier", "benchmarks"])
def test_onnx_runtime_is_told_to_report_nothing_before_it_is_loaded(package: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    code = f"import {package}, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    assert found.stdout.split() == ["1", "False"]
