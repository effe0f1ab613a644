"""What deploy/ holds, as data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CASES = tuple(sorted(path.stem for path in (DEPLOY / "cases").glob("*.yaml")))
Object = dict[str, Any]


@cache
def load(path: str) -> Any:
    """Return what a file of deploy/ holds. Not to be changed, as all that follow."""
    return yaml.safe_load((DEPLOY / path).read_text())


@cache
def rendered(case: str) -> list[Object]:
    return list(yaml.safe_load_all((DEPLOY / "rendered" / f"{case}.yaml").read_text()))


def of_kind(manifests: list[Object], kind: str) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == kind}


def pod_of(deployment: Object) -> Object:
    pod: Object = deployment["spec"]["template"]["spec"]
    return pod


def container_of(deployment: Object) -> Object:
    (container,) = pod_of(deployment)["containers"]
    return dict(container)


def kserve() -> tuple[Object, Object]:
    """The container of the runtime, and the predictor that uses it."""
    (container,) = load("kserve/runtime.yaml")["spec"]["containers"]
    return container, load("kserve/service.yaml")["spec"]["predictor"]


def docker_command() -> list[str]:
    """What the image runs by default, after its entry point."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    (command,) = (line for line in lines if line.startswith("CMD "))
    return list(yaml.safe_load(command.removeprefix("CMD ")))


def serve_commands() -> Iterator[tuple[str, list[str]]]:
    """Every command line of `espalier` in deploy/, and where it stands."""
    for case in CASES:
        yield f"rendered/{case}", container_of(of_kind(rendered(case), "Deployment")["espalier"])["args"]
    yield "kserve", kserve()[0]["args"]
    yield "Dockerfile", docker_command()
    for name, service in load("compose.yaml")["services"].items():
        if service["image"].startswith("espalier"):
            yield f"compose {name}", service["command"]
