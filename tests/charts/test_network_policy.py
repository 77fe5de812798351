"""What a step's pod may reach: the rules of all policies that select it, taken together."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from charts.settings import KUBERNETES_API
from helm import ROOT, Helm, Rendered
from modelmill import recipe as recipes
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners.containers import describe

STORE = {"peers": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "s3"}}}], "ports": [8333]}
NOTIFY = {"peers": [{"ipBlock": {"cidr": "203.0.113.7/32"}}], "ports": [8080]}
GIT = {"peers": [{"ipBlock": {"cidr": "203.0.113.9/32"}}], "ports": [22]}
MIRRORS = {"peers": [{"ipBlock": {"cidr": "203.0.113.11/32"}}], "ports": [5000]}
NAMES, HUB = "53/UDP", "443/TCP"


@pytest.fixture(scope="module")
def labels() -> dict[str, dict[str, str]]:
    """The labels of each task's pod, as the bindings set them."""
    job = Job(recipes.load(ROOT / "pipelines" / "recipes" / "demo.yaml"), Deployment(store="s3://models/line"))
    return {item.id: dict(item.labels) for item in describe(job).containers}


def _selects(policy: dict[str, Any], labels: dict[str, str]) -> bool:
    selector = policy["spec"]["podSelector"]
    wanted = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    assert all(item["operator"] == "Exists" for item in expressions)
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        item["key"] in labels for item in expressions
    )


def _open(found: Rendered, labels: dict[str, str]) -> tuple[set[str], set[str]]:
    """Which directions are shut by default, and the ports that are open outwards."""
    policies = [item for item in found.of("NetworkPolicy").values() if _selects(item, labels)]
    assert not any("ingress" in item["spec"] for item in policies)
    rules = [rule for item in policies for rule in item["spec"].get("egress") or []]
    assert all(rule["to"] for rule in rules), "a rule without peers opens all addresses"
    return (
        {kind for item in policies for kind in item["spec"]["policyTypes"]},
        {f"{port['port']}/{port['protocol']}" for rule in rules for port in rule["ports"]},
    )


def test_fetch_alone_reaches_the_hub_publish_git_and_mirrors_and_finish_who_is_told(
    helm: Helm, labels: dict[str, dict[str, str]]
) -> None:
    found = helm.rendered({"networkPolicy": {"store": STORE, "notify": NOTIFY, "git": GIT, "mirrors": MIRRORS}})
    for name, own in labels.items():
        shut, ports = _open(found, own)
        assert shut == {"Ingress", "Egress"}
        assert ports - {"53/TCP"} == {
            NAMES,
            "8333/TCP",
            *({HUB} if name == "fetch" else ()),
            *({"8080/TCP"} if name == "finish" else ()),
            *({"22/TCP", "5000/TCP"} if name == "publish" else ()),
        }, name


def test_an_opening_without_peers_opens_nothing(helm: Helm, labels: dict[str, dict[str, str]]) -> None:
    nothing = {name: {"peers": []} for name in ("dns", "store", "hub", "identity", "notify", "git", "mirrors")}
    found = helm.rendered({"networkPolicy": nothing})
    assert all(_open(found, own) == ({"Ingress", "Egress"}, set()) for own in labels.values())
    for policy in found.of("NetworkPolicy").values():
        kubernetes_validate.validate(policy, "1.33", strict=True)


def test_other_pods_are_shut_off_unless_the_namespace_is_shared(helm: Helm) -> None:
    assert _open(helm.rendered(), {"app": "other"}) == ({"Ingress", "Egress"}, set())
    assert _open(helm.rendered({"networkPolicy": {"denyOthers": False}}), {"app": "other"}) == (set(), set())


def test_without_the_policy_there_is_none(helm: Helm) -> None:
    assert not helm.rendered({"networkPolicy": {"enabled": False}}).of("NetworkPolicy")


def test_workflow_pods_reach_kubeflows_services_and_the_api(helm: Helm, labels: dict[str, dict[str, str]]) -> None:
    values = {"kubeflow": {"enabled": True}, "networkPolicy": {"store": STORE, "kubernetesApi": KUBERNETES_API}}
    found = helm.rendered(values)
    driver = {"workflows.argoproj.io/workflow": "demo-x1"}
    ports = {"53/UDP", "53/TCP", "8080/TCP", "8887/TCP", "8333/TCP", "9000/TCP", "6443/TCP"}
    assert _open(found, driver) == ({"Ingress", "Egress"}, ports)
    assert _open(found, {**labels["gate.cpu-int8"], **driver})[1] == ports
    assert "6443/TCP" not in _open(found, labels["gate.cpu-int8"])[1]


def test_by_default_no_private_address_is_open_but_the_name_server(
    helm: Helm, labels: dict[str, dict[str, str]]
) -> None:
    for policy in helm.rendered().of("NetworkPolicy").values():
        for rule in policy["spec"].get("egress", []):
            for peer in rule["to"]:
                if "ipBlock" in peer:
                    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(
                        peer["ipBlock"]["except"]
                    )
                else:
                    assert peer["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
