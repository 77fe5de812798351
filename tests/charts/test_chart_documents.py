"""The deployment and the recipes that the chart renders are the product's own, and its versions are the package's."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import yaml

from helm import CHART, ROOT, Helm
from modelmill import deployment as deployments
from modelmill import recipe as recipes
from modelmill.cli.chart import FILLED
from modelmill.core.contract import Zone
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners.containers import describe

DEMO = ROOT / "pipelines" / "recipes" / "demo.yaml"
EVERY_FIELD = {
    "store": "s3://models/line",
    "mounts": ["/data"],
    "images": {"cpu": "registry.example/modelmill-cpu:1"},
    "pull_policy": "Always",
    "pools": {
        "cpu": {"node_selector": {"pool": "cpu"}, "tolerations": [{"key": "batch", "effect": "NoSchedule"}]},
        "gpu": {"node_selector": {"pool": "gpu"}, "accelerator": "amd.com/gpu"},
    },
    "resources": {"cpu": "500m", "memory": "6Gi"},
    "retries": 5,
    "retry_seconds": 3600,
    "start_minutes": 40,
    "timeout_minutes": 1440000,
    "steps": {"retrain": {"resources": {"cpu": "4", "memory": "16Gi"}, "timeout_minutes": 720, "image": "other:1"}},
    "env": {"AWS_REGION": "eu-central-1", "PORT": "0123"},
    "secrets": [{"name": "AWS_SECRET_ACCESS_KEY", "secret": "s3", "key": "secret"}],
    "release_secrets": [{"name": "SIGNING_KEY", "secret": "sign", "key": "key"}],
    "git": {
        "remote": "https://git.example/org/overlays.git",
        "branch": "live",
        "review": {"provider": "gitlab", "api": "https://git.example/api/v4", "project": "org/overlays"},
    },
    "keyless": {
        "identity": "release@example.org",
        "issuer": "https://tokens.example",
        "trust_config": "/etc/trust.json",
    },
    "mirrors": {
        "mlflow": {"address": "https://mlflow.example", "name": "{model}"},
        "hub": {"repository": "org/{model}", "main": None},
    },
    "keep_pods": "always",
    "prices": {"core_hour": 0.04, "currency": "EUR"},
}


def _deployment(helm: Helm, folder: Path, values: dict[str, Any], **given: Any) -> Deployment:
    documents = helm.rendered(values, **given).of("ConfigMap")
    (name,) = [item for item in documents if item.endswith("-deployment")]
    path = folder / "deployment.yaml"
    path.write_text(documents[name]["data"]["deployment.yaml"], "utf-8")
    return deployments.load(path)


def test_the_default_deployment_loads_and_names_the_releases_own_identities(helm: Helm, tmp_path: Path) -> None:
    found = _deployment(helm, tmp_path, {}, release="night", namespace="models")
    assert found.namespace == "models"
    assert found.service_accounts == {
        Zone.UNTRUSTED: "night-modelmill-work",
        Zone.RELEASE: "night-modelmill-release",
    }
    defaults = Deployment()
    same = set(Deployment.model_fields) - {*FILLED, "store", "mounts"}
    assert {name: getattr(found, name) for name in same} == {name: getattr(defaults, name) for name in same}


def test_every_field_of_a_deployment_passes_through_the_values(helm: Helm, tmp_path: Path) -> None:
    assert set(EVERY_FIELD) == set(Deployment.model_fields) - set(FILLED)
    found = _deployment(helm, tmp_path, {"deployment": EVERY_FIELD})
    wanted = Deployment.model_validate({**EVERY_FIELD, "images": {**Deployment().images, **EVERY_FIELD["images"]}})
    assert found == wanted.model_copy(update={"namespace": "modelmill"})


def test_values_hold_each_field_of_a_deployment_once() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    fields = set(Deployment.model_fields) - set(FILLED)
    assert set(values["deployment"]) == fields
    assert set(schema["properties"]["deployment"]["properties"]) == fields


def test_service_accounts_of_ones_own_reach_the_deployment(helm: Helm, tmp_path: Path) -> None:
    values = {"serviceAccounts": {"work": {"create": False, "name": "mine"}, "release": {"name": "signer"}}}
    assert _deployment(helm, tmp_path, values).service_accounts == {Zone.UNTRUSTED: "mine", Zone.RELEASE: "signer"}
    assert set(helm.rendered(values).of("ServiceAccount")) == {"signer"}


def test_recipes_as_files_and_as_mappings_are_what_was_given(helm: Helm, tmp_path: Path) -> None:
    mapping = {**yaml.safe_load(DEMO.read_text("utf-8")), "name": "mapped"}
    mapping["publish"] = {**mapping["publish"], "model": "{{ .Values.store }}"}
    found = helm.rendered({"recipes": {"mapped": mapping}}, options=["--set-file", f"recipes.demo={DEMO}"])
    data = found.one("ConfigMap", "modelmill-recipes")["data"]
    assert data["demo.yaml"] == DEMO.read_text("utf-8")
    assert yaml.safe_load(data["mapped.yaml"]) == mapping
    for name, text in data.items():
        (tmp_path / name).write_text(text.replace("{{ .Values.store }}", "mapped"), "utf-8")
        assert recipes.load(tmp_path / name).recipe == recipes.load(DEMO).recipe.model_copy(
            update={
                "name": name.removesuffix(".yaml"),
                "publish": recipes.load(tmp_path / name).recipe.publish,
            }
        )


def test_the_line_can_be_described_with_what_is_rendered(helm: Helm, tmp_path: Path) -> None:
    deployment = _deployment(helm, tmp_path, {"deployment": EVERY_FIELD})
    containers = {item.id: item for item in describe(Job(recipes.load(DEMO), deployment)).containers}
    assert {item.service_account for name, item in containers.items() if name != "publish"} == {"modelmill-work"}
    assert containers["publish"].service_account == "modelmill-release"


def test_versions_are_the_packages() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert chart["appVersion"] == version
    assert all(image.endswith(f":{version}") for image in values["deployment"]["images"].values())
