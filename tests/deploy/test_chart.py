"""The manifests of deploy/ agree with the program, and with each other. No cluster, no docker, no Helm: see docs/guides/kubernetes.md."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType
from typing import Any

import pytest
import typer

from espalier.commands.options.engines import check_engine_options
from espalier.commands.serve import serve
from tests.deploy.manifests import (
    CASES,
    DEPLOY,
    Object,
    container_of,
    docker_command,
    kserve,
    load,
    of_kind,
    pod_of,
    rendered,
    serve_commands,
)

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

APP = typer.Typer()
APP.command()(serve)
COMMANDS = dict(serve_commands())
DEPLOYMENTS = [(case, name) for case in CASES for name in of_kind(rendered(case), "Deployment")]


def context(arguments: list[str]) -> dict[str, Any]:
    """Return what `espalier serve` would be called with. Raises as the command line does."""
    return typer.main.get_command(APP).make_context("serve", arguments).params


def parsed(arguments: list[str]) -> dict[str, Any]:
    verb, *rest = arguments
    assert verb == "serve"
    return context(rest)


def deployment(case: str, name: str) -> Object:
    return of_kind(rendered(case), "Deployment")[name]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render", DEPLOY / "render.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", CASES)
def test_what_is_rendered_is_what_the_chart_says_now(case: str) -> None:
    first = (DEPLOY / "rendered" / f"{case}.yaml").read_text().splitlines()[0]
    assert first.endswith(script().digest(DEPLOY / "cases" / f"{case}.yaml")), "run: python deploy/render.py"


@pytest.mark.parametrize("place", COMMANDS)
def test_the_command_line_knows_every_option(place: str) -> None:
    assert parsed(COMMANDS[place])["host"] == "0.0.0.0"


@pytest.mark.parametrize("place", COMMANDS)
def test_its_options_go_together(place: str) -> None:
    made = typer.main.get_command(APP).make_context("serve", COMMANDS[place][1:])
    check_engine_options(made, made.params["engine"])


def test_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed([*docker_command(), "--drain=3"])


def test_by_default_ports_and_drain_are_the_programs_own() -> None:
    own, chart, values = parsed(["serve", "repo"]), parsed(COMMANDS["rendered/embedded"]), load("chart/values.yaml")
    for name in ("http_port", "grpc_port", "drain_s"):
        assert chart[name] == own[name], name
    assert (own["http_port"], own["grpc_port"], own["drain_s"]) == (*values["ports"].values(), values["drainSeconds"])
    exposed = re.search(r"^EXPOSE (\d+) (\d+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert exposed is not None
    assert tuple(map(int, exposed.groups())) == (own["http_port"], own["grpc_port"])


@pytest.mark.parametrize(("case", "name"), DEPLOYMENTS)
def test_a_pod_is_left_alone_until_it_has_drained(case: str, name: str) -> None:
    pod, container = pod_of(deployment(case, name)), container_of(deployment(case, name))
    words = dict(word.split("=", 1) for word in container["args"] if "=" in word)
    drain_s = float(words.get("--drain-s") or words["--exit-timeout-secs"])
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert pod["terminationGracePeriodSeconds"] > float(seconds) + drain_s
    # By then it must be known everywhere that the pod is going: at least as long as it takes to find it unready.
    assert float(seconds) >= container["readinessProbe"]["timeoutSeconds"]


def test_so_is_it_with_kserve_and_compose() -> None:
    container, predictor = kserve()
    _, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert predictor["terminationGracePeriodSeconds"] > float(seconds) + parsed(container["args"])["drain_s"]
    services = load("compose.yaml")["services"]
    for name in ("espalier", "espalier-triton"):
        assert float(services[name]["stop_grace_period"].removesuffix("s")) > parsed(services[name]["command"])["drain_s"]
    assert "--exit-timeout-secs=30" in services["triton"]["command"]


@pytest.mark.parametrize(("case", "name"), DEPLOYMENTS)
def test_ports_probes_and_arguments_agree(case: str, name: str) -> None:
    container = container_of(deployment(case, name))
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    said = {word.split("=")[0].removeprefix("--").removesuffix("-port"): word for word in container["args"] if "-port=" in word}
    assert {kind: int(word.split("=")[1]) for kind, word in said.items()} == ports
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


@pytest.mark.parametrize(("case", "name"), DEPLOYMENTS)
def test_a_pod_can_do_little_harm(case: str, name: str) -> None:
    pod, container = pod_of(deployment(case, name)), container_of(deployment(case, name))
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    for mount in container["volumeMounts"]:
        assert "subPath" not in mount  # would pin the folder that a deploy exchanges
        assert mount.get("readOnly") or volumes[mount["name"]]["emptyDir"]["sizeLimit"]


def test_so_is_it_with_the_image_and_with_kserve() -> None:
    (user,) = re.findall(r"^USER (\d+):\d+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    container, predictor = kserve()
    assert int(user) == pod_of(deployment("embedded", "espalier"))["securityContext"]["runAsUser"]
    assert int(user) == container["securityContext"]["runAsUser"] == predictor["securityContext"]["fsGroup"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    for service in load("compose.yaml")["services"].values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_cache_fits_its_volume() -> None:
    """A pod that writes more than the limit of its volume is evicted."""
    pod = pod_of(deployment("embedded", "espalier"))
    (volume,) = (one for one in pod["volumes"] if one["name"] == "cache")
    limit = parsed(COMMANDS["rendered/embedded"])["cache_limit"]
    assert limit < int(volume["emptyDir"]["sizeLimit"].removesuffix("G")) * 1_000_000_000
    (kserve_volume,) = (one for one in load("kserve/runtime.yaml")["spec"]["volumes"] if one["name"] == "cache")
    assert parsed(COMMANDS["kserve"])["cache_limit"] < int(kserve_volume["emptyDir"]["sizeLimit"].removesuffix("G")) * 1e9
    assert parsed(COMMANDS["rendered/triton"])["segment_cache"] is False
    (mount,) = (one for one in container_of(deployment("embedded", "espalier"))["volumeMounts"] if one["name"] == "cache")
    assert f"XDG_CACHE_HOME={mount['mountPath'].rpartition('/')[0]}" in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.parametrize("case", ["triton", "scaled"])
def test_the_token_is_a_file_of_the_secret(case: str) -> None:
    one = deployment(case, "espalier")
    (volume,) = (volume for volume in pod_of(one)["volumes"] if "secret" in volume)
    (mount,) = (mount for mount in container_of(one)["volumeMounts"] if mount["name"] == volume["name"])
    (item,) = volume["secret"]["items"]
    assert str(parsed(COMMANDS[f"rendered/{case}"])["admin_token_file"]) == f"{mount['mountPath']}/{item['path']}"
    assert volume["secret"]["defaultMode"] == 0o440
    assert not any("TOKEN" in variable["name"] for variable in container_of(one).get("env", []))


def test_the_repository_is_where_its_volume_is() -> None:
    for case, volume in (("embedded", "persistentVolumeClaim"), ("triton", "nfs")):
        for name in of_kind(rendered(case), "Deployment"):
            one = deployment(case, name)
            (source,) = (source for source in pod_of(one)["volumes"] if source["name"] == "models")
            assert source.keys() == {"name", volume}
            (mount,) = (mount for mount in container_of(one)["volumeMounts"] if mount["name"] == "models")
            places = [word.split("=")[-1] for word in container_of(one)["args"] if "/models/" in word]
            assert [place.rpartition("/")[0] for place in places] == [mount["mountPath"]]
    assert "models" not in {volume["name"] for volume in pod_of(deployment("scaled", "espalier"))["volumes"]}


def test_triton_mode_finds_its_triton_and_gets_a_gpu_when_asked() -> None:
    manifests = rendered("triton")
    (url,) = (word for word in COMMANDS["rendered/triton"] if word.startswith("--triton-url="))
    host, _, port = url.removeprefix("--triton-url=grpc://").partition(":")
    name, namespace, _ = host.split(".")
    service = of_kind(manifests, "Service")[name]
    assert service["metadata"]["namespace"] == namespace
    assert service["spec"]["clusterIP"] == "None"
    assert int(port) in {one["port"] for one in service["spec"]["ports"]}
    assert container_of(deployment("triton", "espalier-triton"))["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in (DEPLOY / "rendered/embedded.yaml").read_text()
