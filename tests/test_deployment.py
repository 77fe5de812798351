"""A deployment that Kubernetes, Kubeflow or a container engine would refuse is refused as it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelmill import deployment as deployments
from modelmill.core.errors import DeploymentError
from modelmill.deployment import Resources

SECRET = {"name": "A", "secret": "s", "key": "k"}
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("service_accounts", {"service_accounts": {"untrusted": "x"}}),
    ("service_accounts", {"service_accounts": {"untrusted": "x", "release": ""}}),
    *(("resources.cpu", {"resources": {"cpu": cpu}}) for cpu in ("2Gi", "0", "0.0", "0m", "", "1k", "2 ", "-1")),
    *(
        ("resources.memory", {"resources": {"memory": memory}})
        for memory in ("500m", "400k", "0Gi", "4", "1.5Ti", "8GB", "1K", "", "Gi")
    ),
    ("steps.gate.resources.cpu", {"steps": {"gate": {"resources": {"cpu": "many"}}}}),
    ("retry_seconds", {"retry_seconds": 10**12}),
    ("timeout_minutes", {"timeout_minutes": 10**12}),
    ("start_minutes", {"start_minutes": 10**12}),
    ("steps.gate.timeout_minutes", {"steps": {"gate": {"timeout_minutes": 10**12}}}),
    *(("images.cpu", {"images": {"cpu": image}}) for image in ("", "a b", "Not An Image", "a:", "a@sha256:1", "-a")),
    ("steps.gate.image", {"steps": {"gate": {"image": ""}}}),
    *(("env", {"env": {name: "x"}}) for name in ("A B", "", "1", "A=B")),
    *(
        (f"env: the variable {name} is a secret", {"env": {name: "PLANTED"}})
        for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "MODELMILL_GIT_TOKEN")
    ),
    (
        "is a secret: use release_secrets",
        {"env": {"MODELMILL_SIGNING_KEY_PASSWORD": "PLANTED"}},
    ),
    ("secrets: the variable A is named twice", {"secrets": [SECRET, {**SECRET, "key": "l"}]}),
    ("release_secrets: the variable A is named twice", {"release_secrets": [SECRET, {**SECRET}]}),
    ("the variable A is in env and a secret", {"secrets": [SECRET], "env": {"A": "x"}}),
    ("secrets.0.name", {"secrets": [{**SECRET, "name": "A B"}]}),
    ("secrets.0.secret", {"secrets": [{**SECRET, "secret": ""}]}),
    ("release_secrets.0.key", {"release_secrets": [{**SECRET, "key": ""}]}),
    ("pools.cpu.node_selector", {"pools": {"cpu": {"node_selector": {"a b": "c"}}}}),
    ("pools.cpu.node_selector", {"pools": {"cpu": {"node_selector": {"a": "c d"}}}}),
    ("pools.gpu.accelerator", {"pools": {"gpu": {"accelerator": "gpu please"}}}),
    ("pools.cpu.tolerations.0", {"pools": {"cpu": {"tolerations": [{"key": "a", "value": "b"}]}}}),
    ("namespace", {"namespace": "My NS"}),
    ("mirrors.mlflow.address", {"mirrors": {"mlflow": {"address": "http://mill:PLANTED@127.0.0.1:1"}}}),
    (
        "git.review.api",
        {
            "git": {
                "remote": "https://git.example/x.git",
                "review": {"provider": "github", "api": "https://mill:PLANTED@x", "project": "a/b"},
            }
        },
    ),
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=[repr(value) for _, value in WRONG])
def test_what_a_cluster_would_refuse_is_named_by_its_field(tmp_path: Path, field: str, value: dict[str, Any]) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(DeploymentError) as caught:
        deployments.load(path)
    assert field in caught.value.what
    assert "dags/README.md" in str(caught.value)
    assert "PLANTED" not in str(caught.value)


RIGHT: list[dict[str, Any]] = [
    *({"resources": {"cpu": cpu}} for cpu in ("2", "0.5", "1.5", "500m", "96", "0.05")),
    *({"resources": {"memory": memory}} for memory in ("512Mi", "8Gi", "2Ti", "16G", "800M")),
    *(
        {"images": {"cpu": image}}
        for image in (
            "modelmill-cpu:0.1.0",
            "localhost/modelmill-cpu",
            "registry.example:5000/org/modelmill_cpu:v1.2-rc@sha256:" + 64 * "a",
            "[fd00::1]:5000/modelmill:1",
            "sha256:" + 64 * "a",
        )
    ),
    {"pools": {"cpu": {"tolerations": [{"key": "a.b/c", "operator": "Equal", "value": "d"}]}}},
    {"pools": {"cpu": {"node_selector": {"topology.kubernetes.io/zone": "eu-1a", "empty": ""}}}},
    {"service_accounts": {"untrusted": "x", "release": "y"}},
]


@pytest.mark.parametrize("value", RIGHT, ids=repr)
def test_what_a_cluster_takes_is_taken(tmp_path: Path, value: dict[str, Any]) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_text(yaml.safe_dump(value))
    deployments.load(path)


@pytest.mark.parametrize(
    ("memory", "number"), [("512Mi", 512 * 1024**2), ("8Gi", 8 * 1024**3), ("2Ti", 2 * 1024**4), ("7G", 7 * 10**9)]
)
def test_memory_is_a_number_of_bytes_for_docker(memory: str, number: int) -> None:
    assert Resources(memory=memory).memory_bytes == number  # type: ignore[call-arg]


def test_a_deployment_that_is_not_there_is_not_said_to_be_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError) as caught:
        deployments.load(tmp_path / "nowhere.yaml")
    assert "modelmill init" not in str(caught.value)
    assert "pipelines/deployment.yaml" in str(caught.value)
