"""charts/serving renders what the command does, and all of it is valid by KServe, Argo CD and Flux themselves."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from helm import SERVING_CHART, Helm, binary
from javascript import node_modules, require_node
from kserve_schema import problems
from modelmill.serving.kserve import Bundle, ServingValues, manifests, object_name, start_script
from modelmill.steps.publish.overlay import Promotion, edit

DIGEST = "sha256:" + "a" * 64
IMAGE = "registry.example/serving@sha256:" + "b" * 64
VALUES = ServingValues(
    model="banking77",
    target="cpu-int8",
    bundle=Bundle(digest=DIGEST, uri="s3://models/line/artifacts/" + "c" * 64),
    image=IMAGE,
    cpu="2",
    memory="1024Mi",
)
SWITCHES: list[dict[str, Any]] = [
    {},
    {"canaryTrafficPercent": 10, "serviceAccountName": "reader"},
    {"canaryTrafficPercent": 0, "gpus": 1, "model": "my_model.v2"},
]
GIT = {
    "serve": False,
    "model": "banking77",
    "repository": {
        "url": "https://git.example/org/overlays.git",
        "branch": "main",
        "path": "overlays/banking77/staging",
    },
}
FOLLOWERS = [{**GIT, "argocd": {"enabled": True}}, {**GIT, "flux": {"enabled": True, "secret": "overlays"}}]
_ASK = """
const {createRequire} = require("module");
const from = createRequire(process.argv[1] + "/package.json");
for (const item of JSON.parse(process.argv[2])) {
  const [group, version] = item.apiVersion.split("/");
  const pack = group === "argoproj.io" ? "argo-cd" : "flux-cd";
  const found = from(`@kubernetes-models/${pack}/${group}/${version}/${item.kind}`)[item.kind];
  new found(item).validate();
}
"""


def rendered(helm: Helm, values: dict[str, Any]) -> list[dict[str, Any]]:
    return helm.rendered(values, release="serving", namespace="models", chart=SERVING_CHART).objects


@pytest.mark.parametrize("changes", SWITCHES)
def test_the_chart_and_the_command_render_the_same_objects(helm: Helm, changes: dict[str, Any]) -> None:
    values = VALUES.model_copy(update=changes)
    found = {item["kind"]: item for item in rendered(helm, values.model_dump(mode="json"))}
    assert found == {item["kind"]: item for item in manifests(values, "models")}


@pytest.mark.parametrize("changes", SWITCHES)
def test_every_field_is_one_that_kserve_has(changes: dict[str, Any]) -> None:
    for item in manifests(VALUES.model_copy(update=changes), "models"):
        assert problems(json.loads(json.dumps(item))) == []


def test_a_field_that_kserve_does_not_have_is_found() -> None:
    runtime, service = json.loads(json.dumps(manifests(VALUES, "models")))
    service["spec"]["predictor"]["model"]["storageURI"] = "s3://x"
    service["spec"]["predictor"]["minReplicas"] = "1"
    runtime["spec"]["containers"][0]["readynessProbe"] = {}
    assert problems(service) == [
        "InferenceService.spec.predictor.minReplicas is no int",
        "InferenceService.spec.predictor.model has no field storageURI",
    ]
    assert problems(runtime) == ["ServingRuntime.spec.containers[0] has no field readynessProbe"]


@pytest.mark.parametrize("changes", SWITCHES)
def test_the_servers_pod_is_valid_kubernetes_and_allowed_where_pods_are_restricted(changes: dict[str, Any]) -> None:
    runtime, _ = manifests(VALUES.model_copy(update=changes), "models")
    spec: Any = runtime["spec"]
    pod = {key: spec[key] for key in ("containers", "volumes")}
    item = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
    kubernetes_validate.validate(item, "1.33", strict=True)
    (container,) = pod["containers"]
    assert container["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("values", FOLLOWERS)
def test_what_follows_git_is_what_argo_cd_and_flux_take(helm: Helm, values: dict[str, Any]) -> None:
    node, items = require_node(), rendered(helm, values)
    pack = "argo-cd@2.7.2" if "argocd" in values else "flux-cd@2.3.4"
    modules = node_modules(f"@kubernetes-models/{pack}")
    ended = subprocess.run(
        [str(node), "-e", _ASK, str(modules), json.dumps(items)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    for item in items:
        # Their validators pass over names they do not know: the declarations have each that is right.
        group, _, version = item["apiVersion"].partition("/")
        path = modules / f"node_modules/@kubernetes-models/{pack.partition('@')[0]}/{group}/{version}"
        declared = (path / f"{item['kind']}.d.ts").read_text("utf-8")
        unknown = [name for name in _names(item["spec"]) if f'"{name}"' not in declared]
        assert unknown == []


def _names(value: Any) -> set[str]:
    if isinstance(value, list):
        return {name for item in value for name in _names(item)}
    return set(value) | {name for item in value.values() for name in _names(item)} if isinstance(value, dict) else set()


def test_lint_finds_nothing(helm: Helm) -> None:
    for values in (*(VALUES.model_copy(update=item).model_dump(mode="json") for item in SWITCHES), *FOLLOWERS):
        ended = helm("lint", "--strict", SERVING_CHART, "--values", helm.values(values))
        assert ended.returncode == 0, ended.stdout
        assert "[WARNING]" not in ended.stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "registry.example/serving:latest"}, "image"),
        ({"bundle": {"uri": "/srv/store"}}, "uri"),
        ({"bundle": {"uri": "s3://models/a b"}}, "uri"),
        ({"model": ""}, "model is empty"),
        ({"autoscaling": {"minReplicas": 5, "maxReplicas": 3}}, "minReplicas is above"),
        ({"canaryTrafficPercent": 101}, "canaryTrafficPercent"),
        ({"thraeds": 2}, "thraeds"),
        ({"argocd": {"enabled": True}}, "repository.url"),
        ({**GIT, "serve": True, "flux": {"enabled": True}}, "two would write one InferenceService"),
        ({**GIT, "argocd": {"enabled": True}, "flux": {"enabled": True}}, "choose one"),
        ({"repository": {"url": "https://user:token@git.example/x"}}, "url"),
    ],
)
def test_wrong_values_are_refused_with_their_name(helm: Helm, changes: dict[str, Any], words: str) -> None:
    values = VALUES.model_dump(mode="json")
    merged = {**values, **changes, "bundle": {**values["bundle"], **changes.get("bundle", {})}}
    assert words in helm.refused(merged, release="serving", namespace="models", chart=SERVING_CHART)


@pytest.mark.parametrize(
    "place", ["serving/cpu-int8", "lanes/cpu-int8/serving/cpu-int8", "lanes/other/serving/cpu-int8"]
)
def test_the_server_starts_on_the_lane_wherever_it_lies(place: str, tmp_path: Path) -> None:
    (tmp_path / "models" / place).mkdir(parents=True)
    program = tmp_path / "bin" / "tritonserver"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    script = start_script("cpu-int8").replace("/mnt/models", str(tmp_path / "models"))
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}

    def start() -> subprocess.CompletedProcess[str]:
        command = ["/bin/sh", "-c", script, "triton", "--http-port=8080"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert start().stdout.split() == [f"--model-repository={tmp_path}/models/{place}", "--http-port=8080"]
    (tmp_path / "models" / place).rmdir()
    ended = start()
    assert (ended.returncode, ended.stderr) == (2, "the bundle has no lane cpu-int8\n")


def test_a_promotion_in_git_pins_the_bundle_and_the_image_of_what_is_rendered(tmp_path: Path) -> None:
    base, overlay = tmp_path / "base", tmp_path / "overlays/banking77/staging"
    base.mkdir()
    (base / "serving.yaml").write_text(yaml.safe_dump_all(manifests(VALUES, "models")))
    (base / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["serving.yaml"]}))
    promotion = Promotion(
        model="banking77",
        channel="staging",
        move=2,
        kind="promoted",
        bundle="sha256:" + "d" * 64,
        uri="s3://models/line/artifacts/" + "e" * 64,
        verdict="pass",
        report="s3://models/line/report.html",
        by="run 2",
        image="registry.example/serving@sha256:" + "f" * 64,
    )
    for name, content in edit(promotion, "overlays/banking77/staging", lambda path: None).files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    document = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({**document, "resources": ["../../../base"]}))
    ended = subprocess.run(
        [str(binary("kubectl")), "kustomize", str(overlay)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found = {item["kind"]: item for item in yaml.safe_load_all(ended.stdout)}
    service = found["InferenceService"]
    assert service["spec"]["predictor"]["model"]["storageUri"] == promotion.uri
    assert service["metadata"]["annotations"]["modelmill.dev/bundle"] == promotion.bundle
    assert found["ServingRuntime"]["spec"]["containers"][0]["image"] == promotion.image
    for item in found.values():
        assert problems(item) == []


@pytest.mark.parametrize(
    ("model", "name"), [("banking77", "banking77"), ("my_model.v2", "my-model-v2"), ("77-banks", "model-77-banks")]
)
def test_a_models_name_becomes_one_that_a_service_can_have(helm: Helm, model: str, name: str) -> None:
    assert object_name(model) == name
    found = rendered(helm, VALUES.model_copy(update={"model": model}).model_dump(mode="json"))
    assert {item["metadata"]["name"] for item in found} == {name, f"{name}-triton"}
