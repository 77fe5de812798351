"""Values that are wrong are refused with their path, what is wrong and, where the schema cannot say it, the fix."""

from __future__ import annotations

from typing import Any

import pytest

from charts.settings import KUBERNETES_API
from helm import Helm

WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown value": ({"kubeflo": {}}, ["'kubeflo'"]),
    "unknown field of a deployment": ({"deployment": {"retires": 1}}, ["/deployment", "'retires'"]),
    "field that the chart fills in": ({"deployment": {"namespace": "x"}}, ["/deployment", "'namespace'"]),
    "store on this machine": ({"deployment": {"store": ".modelmill"}}, ["/deployment/store", "s3://"]),
    "store of each pod's own": ({"deployment": {"store": "/tmp/x"}}, ["/deployment/store", "s3://"]),
    "store without a bucket": ({"deployment": {"store": "s3://"}}, ["/deployment/store", "s3://"]),
    "store above its bucket": ({"deployment": {"store": "s3://bucket/../x"}}, ["/deployment/store"]),
    "image": ({"deployment": {"images": {"cpu": "a b"}}}, ["/deployment/images/cpu", "'a b'"]),
    "image of no device": ({"deployment": {"images": {"tpu": "a"}}}, ["/deployment/images", "'tpu'"]),
    "variable's name": ({"deployment": {"env": {"A B": "x"}}}, ["/deployment/env", "'A B'"]),
    "secret as a plain value": (
        {"deployment": {"env": {"HF_TOKEN": "PLANTED"}}},
        ["/deployment/env/HF_TOKEN", "use secrets:"],
    ),
    "release's key as a plain value": (
        {"deployment": {"env": {"MODELMILL_GIT_TOKEN": "PLANTED"}}},
        ["/deployment/env", "MODELMILL_GIT_TOKEN"],
    ),
    "password in a Git address": (
        {"deployment": {"git": {"remote": "https://user:PLANTED@git.example/x"}}},
        ["/deployment/git", "remote"],
    ),
    "token in a Git address": (
        {"deployment": {"git": {"remote": "https://PLANTED@git.example/x"}}},
        ["/deployment/git", "remote"],
    ),
    "recipe that is a text": ({"recipes": {"demo": "not a recipe"}}, ["recipes.demo is no mapping", "--set-file"]),
    "recipe that is a list": ({"recipes": {"demo": "- name: x"}}, ["recipes.demo is no mapping"]),
    "label": ({"deployment": {"pools": {"cpu": {"node_selector": {"a b": "c"}}}}}, ["/node_selector", "'a b'"]),
    "cores with a unit of memory": ({"deployment": {"resources": {"cpu": "2Gi"}}}, ["/resources/cpu", "2Gi"]),
    "time-out": ({"deployment": {"timeout_minutes": 10**12}}, ["/deployment/timeout_minutes"]),
    "value of any value": (
        {"deployment": {"pools": {"cpu": {"tolerations": [{"key": "a", "value": "b"}]}}}},
        ["/pools/cpu/tolerations/0"],
    ),
    "number for a switch": ({"airflow": {"enabled": "yes"}}, ["/airflow/enabled", "boolean"]),
    "cores as a number": ({"deployment": {"resources": {"cpu": 2}}}, ["/deployment/resources/cpu", "string"]),
    "memory with a wrong unit": ({"deployment": {"resources": {"memory": "8GB"}}}, ["/resources/memory", "8GB"]),
    "no such step": ({"deployment": {"steps": {"retrian": {}}}}, ["/deployment/steps", "retrian"]),
    "pull policy": ({"deployment": {"pull_policy": "always"}}, ["/deployment/pull_policy", "'IfNotPresent'"]),
    "secret's value": (
        {"deployment": {"secrets": [{"name": "A", "secret": "s", "key": "k", "value": "x"}]}},
        ["/deployment/secrets/0", "'value'"],
    ),
    "secret without a key": ({"deployment": {"release_secrets": [{"name": "A", "secret": "s"}]}}, ["'key'"]),
    "toleration": ({"deployment": {"pools": {"cpu": {"tolerations": [{"keys": "a"}]}}}}, ["/pools/cpu", "'keys'"]),
    "no address range": ({"networkPolicy": {"store": {"peers": [{"ipBlock": {"cidr": "s3"}}]}}}, ["cidr", "'s3'"]),
    "empty peer": ({"networkPolicy": {"hub": {"peers": [{}]}}}, ["/networkPolicy/hub/peers/0"]),
    "port": ({"networkPolicy": {"store": {"ports": [0]}}}, ["/networkPolicy/store/ports/0"]),
    "recipe's name": ({"recipes": {"A B": {"name": "x"}}}, ["/recipes", "A B"]),
    "empty recipe": ({"recipes": {"demo": ""}}, ["/recipes/demo"]),
    "standard": ({"namespace": {"podSecurity": "strict"}}, ["/namespace/podSecurity", "'restricted'"]),
    "quota": ({"quota": {"pods": "many"}}, ["/quota/pods"]),
    "who starts pods": ({"airflow": {"serviceAccounts": []}}, ["/airflow/serviceAccounts"]),
    "one identity for both zones": (
        {"serviceAccounts": {"work": {"name": "a"}, "release": {"name": "a"}}},
        ["name two"],
    ),
    "a release secret that all steps get": (
        {
            "deployment": {
                "secrets": [{"name": "A", "secret": "sign", "key": "key"}],
                "release_secrets": [{"name": "B", "secret": "sign", "key": "key"}],
            }
        },
        ["take it out of secrets"],
    ),
    "no address of the API": ({"kubeflow": {"enabled": True}}, ["kubernetesApi.peers", "kubectl get endpointslices"]),
    "Kubeflow's own namespace": (
        {
            "kubeflow": {"enabled": True, "namespace": "modelmill"},
            "networkPolicy": {"kubernetesApi": KUBERNETES_API},
        },
        ["denyOthers", "set it to false"],
    ),
    "Airflow's own namespace": (
        {"airflow": {"enabled": True, "namespace": "modelmill"}},
        ["denyOthers", "set it to false"],
    ),
    "a quota that refuses sidecars": ({"quota": {"limits.memory": "1Ti"}}, ["set limitRange.default.memory"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_with_path_and_reason(name: str, helm: Helm) -> None:
    values, said = WRONG[name]
    message = helm.refused(values)
    for text in said:
        assert text in message, message
    assert "PLANTED" not in message


def test_a_shared_namespace_is_possible_once_its_other_pods_are_left_alone(helm: Helm) -> None:
    shared = {"denyOthers": False, "kubernetesApi": KUBERNETES_API}
    values = {
        "kubeflow": {"enabled": True, "namespace": "kubeflow"},
        "airflow": {"enabled": True, "namespace": "kubeflow"},
        "networkPolicy": shared,
    }
    found = helm.rendered(values, namespace="kubeflow")
    assert {item["metadata"]["namespace"] for item in found.objects} == {"kubeflow"}
    names = [(item["kind"], item["metadata"]["name"]) for item in found.objects]
    assert len(names) == len(set(names))
