"""The pods that Airflow's provider makes of tasks: valid by Kubernetes' schema, locked down, read when they fail."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
import yaml

from cluster import check_strictly
from environments import ROOT, in_airflow

ONE = {
    "name": "one",
    "task": "text-classification",
    "model": {"source": "s3://models/checkpoint"},
    "data": {"source": "s3://models/rows"},
    "publish": {"model": "one", "channel": "staging"},
}
LONG = "whole_precision.on-any-machine-that-we-ever-had_in-a-rack-here1"
TWO = {
    **ONE,
    "name": "two",
    "targets": [{"name": "int8", "precision": "int8"}, {"name": LONG, "precision": "float32"}],
    "search": {"trials": 0},
}
PLAIN = {"store": "s3://models/line"}
FULL = {
    "store": "s3://models/line",
    "namespace": "models",
    "images": {"cpu": "registry.example/mill@sha256:" + "0" * 64},
    "pull_policy": "Always",
    "pools": {
        "cpu": {
            "node_selector": {"pool": "gpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}],
            "accelerator": "nvidia.com/gpu",
        }
    },
    "resources": {"cpu": "1500m", "memory": "6Gi"},
    "steps": {"retrain": {"resources": {"cpu": "8", "memory": "32Gi"}, "image": "registry.example/own:1"}},
    "env": {"AWS_ENDPOINT_URL": "http://s3.example:9000", "NOTE": "{{ 6 * 7 }}"},
    "secrets": [{"name": "AWS_SECRET_ACCESS_KEY", "secret": "s3", "key": "secret"}],
    "release_secrets": [{"name": "SIGNING_KEY", "secret": "sign", "key": "key"}],
    "service_accounts": {"untrusted": "reader", "release": "writer"},
}


def _pod(status: dict[str, Any]) -> dict[str, Any]:
    resources = {"limits": {"memory": "6Gi", "nvidia.com/gpu": "1"}}
    spec = {
        "nodeSelector": {"pool": "gpu"},
        "containers": [{"name": "base", "image": "mill:1", "resources": resources}, {"name": "airflow-xcom-sidecar"}],
    }
    return {"metadata": {"name": "pod"}, "spec": spec, "status": status}


def _base(state: dict[str, Any], phase: str = "Running") -> dict[str, Any]:
    # The other container is told first and runs on: it is not the one that is asked about.
    statuses = [
        {"name": name, "state": of, "image": "mill:1", "imageID": "", "ready": False, "restartCount": 0}
        for name, of in (("airflow-xcom-sidecar", {"running": {}}), ("base", state))
    ]
    return _pod({"phase": phase, "containerStatuses": statuses})


def _ended(code: int, reason: str = "Error") -> dict[str, Any]:
    return _base({"terminated": {"exitCode": code, "reason": reason}})


def _waits(reason: str, message: str) -> dict[str, Any]:
    return _base({"waiting": {"reason": reason, "message": message}}, "Pending")


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/9 nodes are available: 9 Insufficient nvidia.com/gpu.",
}
STATUSES: dict[str, tuple[dict[str, Any], bool, bool, str]] = {
    "a bug": (_ended(1), False, True, "exit code 1, and another attempt would"),
    "wrong input": (_ended(2), False, True, "exit code 2, and another attempt would"),
    "outside": (_ended(5), True, True, "exit code 5: something outside failed"),
    "memory": (_ended(137, "OOMKilled"), True, True, "nvidia.com/gpu 1; give it more by steps.NAME.resources.memory"),
    "memory of a child": (_ended(1, "OOMKilled"), True, True, "want of memory"),
    "a signal": (_ended(143), True, True, "signal 15"),
    "no such image": (
        _waits("ImagePullBackOff", "mill:1: not found"),
        True,
        False,
        "its image mill:1 is not to be had",
    ),
    "no image's name": (_waits("InvalidImageName", "no name"), False, False, "InvalidImageName: no name"),
    "no such secret": (_waits("CreateContainerConfigError", 'secret "s3" not found'), True, False, 'secret "s3" not'),
    "a pull that takes long": (_waits("ContainerCreating", ""), True, False, "did not start or end in time"),
    "no node": (
        _pod({"phase": "Pending", "conditions": [UNSCHEDULABLE]}),
        True,
        False,
        "9 Insufficient nvidia.com/gpu.). It asks for memory 6Gi, nvidia.com/gpu 1 on nodes with pool=gpu",
    ),
    "evicted": (
        _pod({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}),
        True,
        True,
        "(Evicted: The node was low on resource: ephemeral-storage.)",
    ),
    "deadline": (_pod({"phase": "Failed", "reason": "DeadlineExceeded"}), True, True, "(DeadlineExceeded)"),
}
"""A pod's status: whether another attempt is worth it, whether the pod is done, and what is said."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pods")
    demo = yaml.safe_load((ROOT / "pipelines" / "recipes" / "demo.yaml").read_text("utf-8"))
    dags = {}
    for name, recipe, deployment in (("demo", demo, PLAIN), ("one", ONE, FULL), ("two", TWO, FULL)):
        for kind, value in (("recipe", recipe), ("deployment", deployment)):
            (folder / f"{name}-{kind}.yaml").write_text(yaml.safe_dump(value), "utf-8")
        dags[name] = {kind: str(folder / f"{name}-{kind}.yaml") for kind in ("recipe", "deployment")}
    questions = {"dags": dags, "statuses": {name: item[0] for name, item in STATUSES.items()}}
    (folder / "questions.json").write_text(json.dumps(questions), "utf-8")
    script = ROOT / "tests" / "orchestrators" / "ask_pods.py"
    found: dict[str, Any] = in_airflow(script, folder / "questions.json", home=folder / "home")
    return found


def _all(answers: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{dag}/{task}", pod) for dag, pods in answers["pods"].items() for task, pod in pods.items()]


def test_every_pod_is_valid_by_kubernetes_own_schema(answers: dict[str, Any]) -> None:
    pods = _all(answers)
    assert len(pods) == 15 + 15 + 23
    for _, pod in pods:
        check_strictly(pod)


PLANTED: dict[str, Callable[[dict[str, Any]], object]] = {
    "unknown field of a pod": lambda pod: pod["spec"].update(readOnly=True),
    "unknown field of a container": lambda pod: pod["spec"]["containers"][0].update(timeout=1),
    "wrong type": lambda pod: pod["spec"].update(activeDeadlineSeconds="60"),
    "variable that is no text": lambda pod: pod["spec"]["containers"][0]["env"].append({"name": "X", "value": 1}),
    "container without a name": lambda pod: pod["spec"]["containers"][0].pop("name"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_mistake_planted_in_a_pod_is_refused(name: str, answers: dict[str, Any]) -> None:
    pod = copy.deepcopy(answers["pods"]["one"]["begin"])
    PLANTED[name](pod)
    with pytest.raises(kubernetes_validate.ValidationError):
        check_strictly(pod)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check_strictly({"apiVersion": "v1", "kind": "Pood", "metadata": {"name": "x"}})


def test_names_and_labels_are_such_as_kubernetes_takes(answers: dict[str, Any]) -> None:
    for name, pod in _all(answers):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", pod["metadata"]["name"]), name
        assert len(pod["metadata"]["name"]) <= 63, name
        for label in pod["metadata"]["labels"].values():
            assert re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", label), name
            assert len(label) <= 63, name


def test_pods_are_restricted_and_cannot_write_but_where_they_must(answers: dict[str, Any]) -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a root that is read-only.
    for name, pod in _all(answers):
        spec = pod["spec"]
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostAliases"} & {key for key, value in spec.items() if value}
        assert spec["volumes"] == [{"emptyDir": {}, "name": volume} for volume in ("xcom", "tmp", "work")], name
        assert [item["name"] for item in spec["containers"]] == ["base", "airflow-xcom-sidecar"], name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            }, name
        base, sidecar = ({item["mountPath"] for item in one["volumeMounts"]} for one in spec["containers"])
        assert (base, sidecar) == ({"/airflow/xcom", "/tmp", "/work"}, {"/airflow/xcom"}), name


def test_the_container_beside_a_step_is_of_the_steps_own_image_and_within_a_quota(answers: dict[str, Any]) -> None:
    for name, pod in _all(answers):
        base, sidecar = pod["spec"]["containers"]
        assert sidecar["image"] == base["image"], name
        assert sidecar["imagePullPolicy"] == base["imagePullPolicy"], name
        # Requests that equal the limits everywhere: the last pods that a node short of memory evicts.
        for container in (base, sidecar):
            assert container["resources"]["requests"] == container["resources"]["limits"], name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
    assert answers["pods"]["one"]["retrain"]["spec"]["containers"][1]["image"] == "registry.example/own:1"


def test_pods_run_where_and_as_the_deployment_says(answers: dict[str, Any]) -> None:
    for task, pod in answers["pods"]["two"].items():
        spec, base = pod["spec"], pod["spec"]["containers"][0]
        own = {"cpu": "8", "memory": "32Gi"} if task == "retrain" else {"cpu": "1500m", "memory": "6Gi"}
        assert base["resources"]["limits"] == {**own, "nvidia.com/gpu": "1"}, task
        assert spec["nodeSelector"] == {"pool": "gpu"}
        toleration = {"key": "nvidia.com/gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}
        assert spec["tolerations"] == [toleration]
        assert spec["serviceAccountName"] == ("writer" if task == "publish" else "reader")
        assert spec["restartPolicy"] == "Never"
        secrets = {item["name"]: item["valueFrom"] for item in base["env"] if "valueFrom" in item}
        key = {"secretKeyRef": {"name": "s3", "key": "secret"}}
        signing = {"SIGNING_KEY": {"secretKeyRef": {"name": "sign", "key": "key"}}} if task == "publish" else {}
        assert secrets == {"AWS_SECRET_ACCESS_KEY": key, **signing}
        assert {"name": "NOTE", "value": "{{ 6 * 7 }}"} in base["env"]


@pytest.mark.parametrize("name", STATUSES)
def test_a_failed_pod_is_told_in_a_sentence_and_tried_again_where_that_helps(
    name: str, answers: dict[str, Any]
) -> None:
    _, again, ended, said = STATUSES[name]
    found = answers["failures"][name]
    assert said in found["what"]
    assert (found["again"], found["ended"]) == (again, ended)
