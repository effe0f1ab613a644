"""Renders the chart for each file of values in cases/ into rendered/: what tests look at, and what `kubectl apply` takes without Helm.

    python deploy/render.py

Needs the `helm` command, or the package helm-python-sdk, which holds Helm itself. The first line of each file says what it was made
from, so that a test without Helm knows whether it is still what the chart says.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parent
CHART, CASES, RENDERED = DEPLOY / "chart", DEPLOY / "cases", DEPLOY / "rendered"
RELEASE = NAMESPACE = "espalier"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent)


def digest(case: Path) -> str:
    """Return the SHA-256 of the chart and of the values in `case`, which are all that a rendered file depends on."""
    files = [case, *sorted(path for path in CHART.rglob("*") if path.is_file())]
    parts = (f"{file.relative_to(DEPLOY).as_posix()}\0".encode() + file.read_bytes() for file in files)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def rendered_text(case: Path) -> str:
    """Return the manifests for the values in `case` as YAML, in an order that does not depend on the renderer."""
    manifests = sorted(_manifests(case), key=lambda one: (one["kind"], one["metadata"]["name"]))
    for one in manifests:
        one["metadata"].setdefault("namespace", NAMESPACE)
    text = yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=200)
    return f"# Made by deploy/render.py from the chart and {case.name}: {digest(case)}\n---\n{text}"


def _manifests(case: Path) -> Iterator[dict[str, Any]]:
    texts = _by_command(case) if shutil.which("helm") else _by_package(case)
    for text in texts:
        yield from (one for one in yaml.safe_load_all(text) if one)


def _by_command(case: Path) -> list[str]:
    command = ["helm", "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", str(case)]
    return [subprocess.run(command, check=True, capture_output=True, text=True).stdout]


def _by_package(case: Path) -> list[str]:
    import helm_python

    values = yaml.safe_load(case.read_text()) or {}
    with helm_python.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    return [text for name, text in files.items() if name.endswith(".yaml")]


if __name__ == "__main__":
    for each in sorted(CASES.glob("*.yaml")):
        (RENDERED / each.name).write_text(rendered_text(each))
