"""Who may do what: roles rule by rule, and that nothing but publish has what releases."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from environments import airflow_python
from helm import Helm, Rendered

ORCHESTRATORS = {
    "kubeflow": {"enabled": True},
    "airflow": {"enabled": True},
    "networkPolicy": {"enabled": False},
}
Rules = set[tuple[str, str, str, str]]


@pytest.fixture(scope="module")
def both(helm: Helm) -> Rendered:
    return helm.rendered(ORCHESTRATORS)


def _rules(role: dict[str, Any]) -> Rules:
    """(group, resource, the one object's name or *, verb) of each rule."""
    return {
        (group, resource, name, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
        for verb in rule["verbs"]
    }


def test_kubeflow_may_report_results_and_read_its_pipeline_root(both: Rendered) -> None:
    assert _rules(both.one("Role", "modelmill-kubeflow")) == {
        ("argoproj.io", "workflowtaskresults", "*", "create"),
        ("argoproj.io", "workflowtaskresults", "*", "patch"),
        ("", "configmaps", "kfp-launcher", "get"),
        ("", "secrets", "mlpipeline-minio-artifact", "get"),
    }


def test_with_an_identity_for_its_pipeline_root_kubeflow_reads_no_secret(helm: Helm) -> None:
    found = helm.rendered({**ORCHESTRATORS, "kubeflow": {"enabled": True, "artifactSecret": ""}})
    assert not [rule for rule in _rules(found.one("Role", "modelmill-kubeflow")) if rule[1] == "secrets"]


def test_airflow_may_what_its_provider_calls_and_no_more(both: Rendered) -> None:
    rules = _rules(both.one("Role", "modelmill-airflow"))
    assert rules == {
        *(("", "pods", "*", verb) for verb in ("create", "delete", "get", "list", "patch")),
        ("", "pods/log", "*", "get"),
        *(("", "pods/exec", "*", verb) for verb in ("create", "get")),
        *(("", "events", "*", verb) for verb in ("list", "watch")),
    }
    folder = airflow_python().parents[1] / "lib" / "python3.11" / "site-packages/airflow/providers/cncf/kubernetes"
    assert {(resource, verb) for _, resource, _, verb in rules} == _called(folder)


def _called(provider: Path) -> set[tuple[str, str]]:
    """What the provider calls for a pod, by its source."""
    verbs = {"read": "get", "connect_get": "get"}
    resources = {"pod": "pods", "pod_log": "pods/log", "pod_exec": "pods/exec", "event": "events"}
    found = set()
    for file in ("operators/pod.py", "utils/pod_manager.py", "hooks/kubernetes.py", "triggers/pod.py"):
        text = (provider / file).read_text("utf-8")
        for verb, resource in re.findall(r"\.(read|list|create|delete|patch|connect_get)_namespaced_(\w+)", text):
            if resource in resources:
                found.add((resources[resource], verbs.get(verb, verb)))
        for resource in re.findall(r"w\.stream\(\s*\w+\.list_namespaced_(\w+)", text):
            found.add((resources[resource], "watch"))
    # From Kubernetes 1.35 on the API server wants create of whoever opens a websocket into a container.
    return found | {("pods/exec", "create")}


@pytest.mark.parametrize("name", ["modelmill-kubeflow", "modelmill-airflow"])
def test_roles_hold_in_this_namespace_for_those_named_alone(both: Rendered, name: str) -> None:
    assert set(both.of("Role")) == set(both.of("RoleBinding")) == {"modelmill-kubeflow", "modelmill-airflow"}
    assert not [item for item in both.objects if item["kind"].startswith("Cluster")]
    binding = both.one("RoleBinding", name)
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    assert {(item["namespace"], item["name"]) for item in binding["subjects"]} == {
        "modelmill-kubeflow": {("modelmill", "modelmill-work")},
        "modelmill-airflow": {("airflow", "airflow-worker"), ("airflow", "airflow-triggerer")},
    }[name]
    assert both.one("Role", name)["metadata"]["namespace"] == binding["metadata"]["namespace"] == "modelmill"


def test_without_an_orchestrator_nobody_may_anything(helm: Helm) -> None:
    found = helm.rendered()
    assert not found.of("Role")
    assert not found.of("RoleBinding")


@pytest.mark.parametrize(("enabled", "token"), [(False, False), (True, True)])
def test_a_token_is_mounted_for_kubeflows_launcher_alone(helm: Helm, *, enabled: bool, token: bool) -> None:
    accounts = helm.rendered({**ORCHESTRATORS, "kubeflow": {"enabled": enabled}}).of("ServiceAccount")
    assert accounts["modelmill-work"]["automountServiceAccountToken"] is token
    assert accounts["modelmill-release"]["automountServiceAccountToken"] is False


def test_identities_and_pull_secrets_stand_at_the_accounts(helm: Helm) -> None:
    role = "eks.amazonaws.com/role-arn"
    values = {
        "serviceAccounts": {"work": {"annotations": {role: "work"}}, "release": {"annotations": {role: "release"}}},
        "imagePullSecrets": [{"name": "registry"}],
    }
    accounts = helm.rendered(values).of("ServiceAccount")
    for zone in ("work", "release"):
        account = accounts[f"modelmill-{zone}"]
        assert account["metadata"]["annotations"] == {role: zone}
        assert account["imagePullSecrets"] == [{"name": "registry"}]


def test_release_secrets_are_named_in_the_deployment_alone(helm: Helm) -> None:
    planted = {"name": "SIGNING_KEY", "secret": "planted-signing", "key": "key"}
    found = helm.rendered({**ORCHESTRATORS, "deployment": {"release_secrets": [planted]}})
    holders = {item["metadata"]["name"] for item in found.objects if "planted-signing" in yaml.safe_dump(item)}
    assert holders == {"modelmill-deployment"}
    document = yaml.safe_load(found.one("ConfigMap", "modelmill-deployment")["data"]["deployment.yaml"])
    assert document.pop("release_secrets") == [planted]
    assert "planted-signing" not in yaml.safe_dump(document)
