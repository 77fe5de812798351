"""What a deployment says of each step, asserted in the compiled pipeline as the backend reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from environments import ROOT
from modelmill import recipe as recipes
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners import kubeflow
from modelmill.runners.containers import describe

pytest.importorskip("kfp")

SECRET = "planted-secret-4471"
DEPLOYMENT = {
    "store": "s3://models/line",
    "images": {"cpu": "registry.example/modelmill-cpu:1"},
    "pull_policy": "Always",
    "pools": {
        "cpu": {
            "node_selector": {"pool": "accelerated", "zone": "a"},
            "tolerations": [
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                {"key": "batch", "operator": "Equal", "value": "yes"},
            ],
            "accelerator": "nvidia.com/gpu",
        }
    },
    "resources": {"cpu": "2", "memory": "6Gi"},
    "retries": 3,
    "retry_seconds": 45,
    "timeout_minutes": 90,
    "steps": {
        "retrain": {"resources": {"cpu": "7500m", "memory": "24Gi"}, "timeout_minutes": 720, "retries": 1},
        "export": {"image": "registry.example/own:2", "resources": {"cpu": "4", "memory": "12Gi"}},
        "evaluate-measure": {"retries": 0, "timeout_minutes": 30},
        "begin": {"resources": {"cpu": "500m", "memory": "512Mi"}},
        "finish": {"timeout_minutes": 10},
    },
    "env": {"AWS_ENDPOINT_URL": "http://s3.example:9000", "AWS_REGION": "eu-central-1"},
    "secrets": [{"name": "AWS_SECRET_ACCESS_KEY", "secret": "s3", "key": "secret"}],
    "release_secrets": [
        {"name": "SIGNING_KEY", "secret": "sign", "key": "key"},
        {"name": "GIT_TOKEN", "secret": "git", "key": "token"},
    ],
}
RESOURCES = {"retrain": ("7500m", "24Gi"), "export.cpu-int8": ("4", "12Gi"), "begin": ("500m", "512Mi")}
MINUTES = {"retrain": 720, "evaluate-measure.cpu-int8": 30, "finish": 10}
RETRIES = {"retrain": 1, "evaluate-measure.cpu-int8": 0, "finish": 0}
"""What `finish` tells is how the others ended; trying it again is for who reads that."""


@pytest.fixture(scope="module")
def package() -> str:
    """The demo under the deployment, compiled with the secrets' values in the environment."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("AWS_SECRET_ACCESS_KEY", "SIGNING_KEY", "GIT_TOKEN", "MODELMILL_NOTIFY_URL"):
            patched.setenv(name, SECRET)
        located = recipes.load(ROOT / "pipelines" / "recipes" / "demo.yaml")
        return kubeflow.compiled(describe(Job(located, Deployment.model_validate(DEPLOYMENT)))).decode()


@pytest.fixture(scope="module")
def placed(package: str) -> dict[str, tuple[Any, Any, Any]]:
    """Task → its container, what Kubernetes is told of it, and the task itself."""
    spec, platform = yaml.safe_load_all(package)
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    found = {}
    for task in _tasks(spec):
        label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
        if label is not None:
            container = spec["deploymentSpec"]["executors"][label]["container"]
            found[task["taskInfo"]["name"]] = (container, kubernetes[label], task)
    return found


def _tasks(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for component in (spec["root"], *spec["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).values()


def test_every_task_of_the_line_is_placed(placed: dict[str, Any]) -> None:
    assert len(placed) == 3 + 3 + 8 + 1
    assert {"begin", "retrain", "gate.cpu-int8", "publish", "finish"} <= set(placed)


def test_cores_memory_and_accelerators_are_requested_and_the_limit(placed: dict[str, Any]) -> None:
    for name, (container, _, _) in placed.items():
        cpu, memory = RESOURCES.get(name, ("2", "6Gi"))
        resources = container["resources"]
        assert (resources["resourceCpuLimit"], resources["resourceCpuRequest"]) == (cpu, cpu), name
        assert (resources["resourceMemoryLimit"], resources["resourceMemoryRequest"]) == (memory, memory), name
        # Known to be lost in some forms (kubeflow/pipelines#11374, #11928); older backends read the older pair.
        accelerator = resources["accelerator"]
        assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "1"), name
        assert (accelerator["type"], accelerator["count"]) == ("nvidia.com/gpu", "1"), name


def test_images_and_pull_policy(placed: dict[str, Any]) -> None:
    for name, (container, kubernetes, _) in placed.items():
        own = name == "export.cpu-int8"
        assert container["image"] == ("registry.example/own:2" if own else "registry.example/modelmill-cpu:1"), name
        assert kubernetes["imagePullPolicy"] == "Always", name


def test_nodes_and_taints(placed: dict[str, Any]) -> None:
    for name, (_, kubernetes, _) in placed.items():
        assert kubernetes["nodeSelector"] == {"labels": {"pool": "accelerated", "zone": "a"}}, name
        assert kubernetes["tolerations"] == [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "batch", "operator": "Equal", "value": "yes"},
        ], name


def test_retries_back_off_and_attempts_end(placed: dict[str, Any]) -> None:
    for name, (_, kubernetes, task) in placed.items():
        assert kubernetes["activeDeadlineSeconds"] == str(60 * MINUTES.get(name, 90)), name
        retry = task.get("retryPolicy", {})
        assert retry.get("maxRetryCount", 0) == RETRIES.get(name, 3), name
        if retry:
            assert (retry["backoffDuration"], retry["backoffFactor"]) == ("45s", 2.0), name
        # Kubeflow's cache would take an output for there that is gone from the bucket (kubeflow/pipelines#7939).
        assert not task["cachingOptions"].get("enableCache"), name


def test_secrets_are_named_and_the_release_ones_for_publish_alone(placed: dict[str, Any]) -> None:
    everyone = [("s3", "secret", "AWS_SECRET_ACCESS_KEY")]
    release = [("sign", "key", "SIGNING_KEY"), ("git", "token", "GIT_TOKEN")]
    for name, (container, kubernetes, _) in placed.items():
        given = [
            (secret["secretName"], item["secretKey"], item["envVar"])
            for secret in kubernetes["secretAsEnv"]
            for item in secret["keyToEnv"]
        ]
        assert given == (everyone + release if name == "publish" else everyone), name
        plain = {item["name"]: item["value"] for item in container["env"]}
        assert plain.pop("MODELMILL_RECIPE", None) is not None or name != "begin"
        assert plain.pop("MODELMILL_CONTAINER_IMAGE") == container["image"], name
        assert plain == DEPLOYMENT["env"], name


def test_no_value_of_a_secret_is_in_the_package(package: str) -> None:
    assert SECRET not in package
    assert "MODELMILL_NOTIFY_URL" not in package
