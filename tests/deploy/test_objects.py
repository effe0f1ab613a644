"""The objects of the chart select, reach and scale what they should."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.manifests import CASES, DEPLOY, Object, container_of, load, of_kind, rendered

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute


def selected(manifests: list[Object], labels: dict[str, str]) -> list[str]:
    """Return the deployments whose pods have all of `labels`."""
    return [
        name
        for name, one in of_kind(manifests, "Deployment").items()
        if labels.items() <= one["spec"]["template"]["metadata"]["labels"].items()
    ]


def label_selectors(one: Object) -> list[dict[str, str]]:
    spec = one["spec"]
    if one["kind"] == "Service":
        return [spec["selector"]]
    if one["kind"] == "Deployment":
        spread = spec["template"]["spec"]["topologySpreadConstraints"]
        return [spec["selector"]["matchLabels"], *(each["labelSelector"]["matchLabels"] for each in spread)]
    selector = spec.get("podSelector") or spec["selector"]
    return [selector["matchLabels"]]


@pytest.mark.parametrize("case", CASES)
def test_each_selector_selects_one_deployment_of_its_own_name(case: str) -> None:
    manifests = rendered(case)
    kinds = {"Service", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"}
    seen = set()
    for one in (one for one in manifests if one["kind"] in kinds):
        for labels in label_selectors(one):
            assert selected(manifests, labels) == [one["metadata"]["name"].removesuffix("-pods")]
            seen.add(one["kind"])
    assert seen == kinds - ({"PodMonitor"} if case == "embedded" else set())


@pytest.mark.parametrize("case", CASES)
def test_each_deployment_has_its_budget_policy_and_service(case: str) -> None:
    manifests = rendered(case)
    deployments = of_kind(manifests, "Deployment").keys()
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        assert of_kind(manifests, kind).keys() == deployments
    assert deployments <= of_kind(manifests, "Service").keys()
    names = [(one["kind"], one["metadata"]["name"]) for one in manifests]
    assert len(names) == len(set(names))
    assert {one["metadata"]["namespace"] for one in manifests} == {"espalier"}


@pytest.mark.parametrize("case", CASES)
def test_services_and_monitors_lead_to_ports_that_exist(case: str) -> None:
    manifests = rendered(case)
    deployments = of_kind(manifests, "Deployment")

    def ports(labels: dict[str, str]) -> dict[str, int]:
        (name,) = selected(manifests, labels)
        return {one["name"]: one["containerPort"] for one in container_of(deployments[name])["ports"]}

    for service in of_kind(manifests, "Service").values():
        for port in service["spec"]["ports"]:
            assert ports(service["spec"]["selector"])[port["targetPort"]] == port["port"]
    for monitor in of_kind(manifests, "PodMonitor").values():
        (end,) = monitor["spec"]["podMetricsEndpoints"]
        assert end["port"] in ports(monitor["spec"]["selector"]["matchLabels"])


def admitted(policy: Object, direction: str, labels: dict[str, str]) -> set[int]:
    """Return the ports that a policy opens to or from pods with `labels` of its own namespace."""
    peers = "from" if direction == "ingress" else "to"
    found: set[int] = set()
    for rule in policy["spec"].get(direction, []):
        selectors: list[Any] = [peer["podSelector"] for peer in rule.get(peers, []) if "podSelector" in peer]
        if any(selector.get("matchLabels", {}).items() <= labels.items() for selector in selectors):
            found |= {port["port"] for port in rule["ports"]}
    return found


def test_only_the_router_reaches_triton_and_only_over_grpc() -> None:
    manifests = rendered("triton")
    policies, deployments = of_kind(manifests, "NetworkPolicy"), of_kind(manifests, "Deployment")
    router, triton = (deployments[name]["spec"]["template"]["metadata"]["labels"] for name in ("espalier", "espalier-triton"))
    assert admitted(policies["espalier-triton"], "ingress", router) == {9001}
    assert admitted(policies["espalier-triton"], "ingress", {"app": "stranger"}) == set()
    assert admitted(policies["espalier"], "egress", triton) == {9001}
    assert admitted(policies["espalier"], "ingress", {"app": "client"}) == {9000, 9001}
    assert admitted(policies["espalier"], "egress", {"app": "stranger"}) == set()
    for policy in policies.values():
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert all(rule.get("from") for rule in policy["spec"]["ingress"])  # none for everybody
        assert all(
            rule.get("to") or {port["port"] for port in rule["ports"]} == {53} for rule in policy["spec"].get("egress", [])
        )


def test_monitoring_reaches_the_metrics() -> None:
    for name, port in (("espalier", 9000), ("espalier-triton", 9002)):
        rules = of_kind(rendered("triton"), "NetworkPolicy")[name]["spec"]["ingress"]
        (rule,) = (rule for rule in rules if any("namespaceSelector" in peer for peer in rule["from"]))
        assert [one["port"] for one in rule["ports"]] == [port]


@pytest.mark.parametrize("case", CASES)
def test_replicas_are_said_once(case: str) -> None:
    manifests = rendered(case)
    deployments, scalers = of_kind(manifests, "Deployment"), of_kind(manifests, "HorizontalPodAutoscaler")
    for name, one in deployments.items():
        assert ("replicas" in one["spec"]) != (name in scalers)
    for name, scaler in scalers.items():
        assert scaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        assert name in deployments
        assert scaler["spec"]["minReplicas"] <= scaler["spec"]["maxReplicas"]


def test_autoscalers_read_what_the_adapter_offers_and_the_rules_record() -> None:
    custom = load("monitoring/adapter-values.yaml")["rules"]["custom"]
    offered = {rule["name"]["as"]: rule["seriesQuery"].split("{")[0] for rule in custom}
    recorded = {
        rule["record"] for group in load("chart/files/rules.yaml")["groups"] for rule in group["rules"] if "record" in rule
    }
    assert set(offered.values()) == recorded
    asked = {
        (case, name): metric["pods"]["metric"]["name"]
        for case in ("scaled", "triton")
        for name, scaler in of_kind(rendered(case), "HorizontalPodAutoscaler").items()
        for metric in scaler["spec"]["metrics"]
        if metric["type"] == "Pods"
    }
    # What computes is scaled by its queue; the router in front of Triton by its CPU.
    assert asked.keys() == {("scaled", "espalier"), ("triton", "espalier-triton")}
    assert set(asked.values()) == offered.keys()


def test_the_operators_rules_and_the_dashboard_are_the_files() -> None:
    manifests = rendered("triton")
    assert of_kind(manifests, "PrometheusRule")["espalier"]["spec"] == load("chart/files/rules.yaml")
    (text,) = of_kind(manifests, "ConfigMap")["espalier-dashboard"]["data"].values()
    assert text.strip() == (DEPLOY / "chart/files/dashboard.json").read_text().strip()
