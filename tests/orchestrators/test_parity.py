"""The compiled pipeline, the DAG and the declared line are one: images, arguments, edges, environment, placement."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import environments
from modelmill import deployment as deployments
from modelmill import recipe as recipes
from modelmill.line import Job
from modelmill.runners.containers import describe
from modelmill.runners.kubeflow import compile_to
from normal_form import of_documents, of_kubeflow, of_line

pytest.importorskip("kfp")

DEPLOYMENT = {
    "store": "s3://models/line",
    "images": {"cpu": "registry.example/modelmill-cpu:1", "light": "registry.example/modelmill-light:1"},
    "mounts": ["/data", "/mnt/{{ braces }}"],
    "pools": {"cpu": {"node_selector": {"pool": "cpu"}, "tolerations": [{"key": "batch", "effect": "NoSchedule"}]}},
    "resources": {"cpu": "2", "memory": "6Gi"},
    "steps": {"retrain": {"resources": {"cpu": "4", "memory": "16Gi"}, "timeout_minutes": 600, "retries": 1}},
    "env": {"AWS_ENDPOINT_URL": "http://s3.example:9000"},
    "secrets": [{"name": "AWS_SECRET_ACCESS_KEY", "secret": "s3", "key": "secret"}],
    "release_secrets": [{"name": "SIGNING_KEY", "secret": "sign", "key": "key"}],
}
DAG_FILE = environments.ROOT / "dags" / "modelmill_dag.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``recipes/`` with one recipe of two targets, and ``deployment.yaml``."""
    folder = tmp_path_factory.mktemp("parity")
    recipe = yaml.safe_load((environments.ROOT / "pipelines" / "recipes" / "demo.yaml").read_text("utf-8"))
    recipe["targets"].append({"name": "cpu-float32", "precision": "float32"})
    (folder / "recipes").mkdir()
    (folder / "recipes" / "demo.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    (folder / "deployment.yaml").write_text(yaml.safe_dump(DEPLOYMENT), "utf-8")
    return folder


@pytest.fixture(scope="module")
def line(folder: Path) -> dict[str, Any]:
    return of_line(folder / "recipes" / "demo.yaml", folder / "deployment.yaml")


@pytest.fixture(scope="module")
def package(folder: Path) -> Path:
    located = recipes.load(folder / "recipes" / "demo.yaml")
    compile_to(describe(Job(located, deployments.load(folder / "deployment.yaml"))), folder / "demo-pipeline.yaml")
    return folder / "demo-pipeline.yaml"


def test_the_compiled_pipeline_is_the_line(line: dict[str, Any], package: Path) -> None:
    assert of_kubeflow(package) == line
    assert len(line["tasks"]) == 3 + 3 + 8 * 2 + 1


def test_targets_that_differ_in_punctuation_alone_stay_apart(folder: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((folder / "recipes" / "demo.yaml").read_text("utf-8"))
    recipe["targets"] = [{"name": name, "precision": "float32"} for name in ("x-2", "x", "x.2", "x_2")]
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    described = describe(Job(recipes.load(tmp_path / "demo.yaml"), deployments.load(folder / "deployment.yaml")))
    compile_to(described, tmp_path / "pipeline.yaml")
    assert of_kubeflow(tmp_path / "pipeline.yaml") == of_line(tmp_path / "demo.yaml", folder / "deployment.yaml")


def test_the_dag_is_the_line(line: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    dag = environments.in_airflow(
        environments.ROOT / "tests" / "normal_form.py",
        "airflow",
        folder,
        folder,
        DAG_FILE,
        home=tmp_path,
        MODELMILL_RECIPES=str(folder / "recipes"),
        MODELMILL_DEPLOYMENT=str(folder / "deployment.yaml"),
    )
    assert dag == line


def _executor(spec: list[dict[str, Any]], name: str) -> dict[str, Any]:
    executor: dict[str, Any] = spec[0]["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
    return executor


def _placed(spec: list[dict[str, Any]], name: str) -> dict[str, Any]:
    placed: dict[str, Any] = spec[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{name}"]
    return placed


def _task(spec: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for component in [spec[0]["root"], *spec[0]["components"].values()]:
        found: dict[str, Any] | None = component.get("dag", {}).get("tasks", {}).get(name)
        if found:
            return found
    raise AssertionError(name)


def _outputs(spec: list[dict[str, Any]], name: str) -> dict[str, Any]:
    artifacts: dict[str, Any] = spec[0]["components"][f"comp-{name}"]["outputDefinitions"]["artifacts"]
    return artifacts


def _unconditional(spec: list[dict[str, Any]]) -> None:
    for component in [spec[0]["root"], *spec[0]["components"].values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            if "condition" in task.get("triggerPolicy", {}):
                del task["triggerPolicy"]


PLANTED: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "image": lambda spec: _executor(spec, "retrain").update(image="other"),
    "one argument": lambda spec: _executor(spec, "retrain")["command"].pop(4),
    "an argument that no backend joins": lambda spec: _executor(spec, "retrain")["command"].__setitem__(
        -3, json.dumps({"Concat": ["rows=", "{{$.inputs.parameters['fetch']}}", "#train"]})
    ),
    "a placeholder that no backend fills in": lambda spec: _executor(spec, "retrain")["command"].__setitem__(
        6, "{{$.pipeline_job_uuid}}"
    ),
    "an output that is shown": lambda spec: _outputs(spec, "gate-cpu-int8").pop("confusion"),
    "a type that is shown as nothing": lambda spec: _outputs(spec, "finish")["report"].update(
        artifactType={"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}
    ),
    "an output more": lambda spec: spec[0]["components"]["comp-fetch"]["outputDefinitions"].update(
        artifacts={"metrics": {"artifactType": {"schemaTitle": "system.Metrics", "schemaVersion": "0.0.1"}}}
    ),
    "one variable": lambda spec: _executor(spec, "fetch")["env"].pop(),
    "one secret": lambda spec: _placed(spec, "publish")["secretAsEnv"].pop(),
    "memory": lambda spec: _executor(spec, "retrain")["resources"].update(
        resourceMemoryLimit="1Gi", resourceMemoryRequest="1Gi"
    ),
    "label": lambda spec: _placed(spec, "fetch").pop("podMetadata"),
    "node selector": lambda spec: _placed(spec, "fetch").pop("nodeSelector"),
    "toleration": lambda spec: _placed(spec, "fetch").pop("tolerations"),
    "retries": lambda spec: _task(spec, "fetch").pop("retryPolicy"),
    "time-out": lambda spec: _placed(spec, "fetch").update(activeDeadlineSeconds="60"),
    "root": lambda spec: _placed(spec, "fetch").pop("securityContext"),
    "writable folder": lambda spec: _placed(spec, "fetch")["emptyDirMounts"].pop(),
    "condition": _unconditional,
    "edge": lambda spec: _task(spec, "retrain")["inputs"]["parameters"].update(
        fetch={"runtimeValue": {"constant": "sha256:0"}}
    ),
    "default": lambda spec: spec[0]["root"]["inputDefinitions"]["parameters"]["retrain_epochs"].update(
        defaultValue=9.0
    ),
    "parameter": lambda spec: spec[0]["root"]["inputDefinitions"]["parameters"].pop("gate_confidence"),
}


@pytest.fixture(scope="module")
def documents(package: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(package.read_text("utf-8")))


@pytest.mark.parametrize("name", PLANTED)
def test_a_difference_planted_in_the_pipeline_is_seen(
    name: str, line: dict[str, Any], documents: list[dict[str, Any]]
) -> None:
    planted = copy.deepcopy(documents)
    PLANTED[name](planted)
    assert of_documents(planted) != line


def test_differences_planted_in_the_dag_are_seen(folder: Path, tmp_path: Path) -> None:
    found = environments.in_airflow(
        environments.ROOT / "tests" / "orchestrators" / "plant_in_airflow.py",
        DAG_FILE,
        home=tmp_path,
        MODELMILL_RECIPES=str(folder / "recipes"),
        MODELMILL_DEPLOYMENT=str(folder / "deployment.yaml"),
    )
    assert found == {"planted": 18, "unseen": []}


@pytest.mark.figures
def test_twenty_recipes_of_two_targets_compile_within_fifteen_seconds(folder: Path, tmp_path: Path) -> None:
    # In a process of its own, as a user compiles: kfp looks at the stack for each task, and pytest's is deep.
    (tmp_path / "compile.py").write_text(_TWENTY, "utf-8")
    command = [sys.executable, tmp_path / "compile.py", folder, tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    one, all_of_them = (float(text) for text in ended.stdout.split())
    sys.stdout.write(f"\none recipe of two targets: {one:.2f} s; twenty: {all_of_them:.2f} s\n")
    assert one < 5
    assert all_of_them < 15


_TWENTY = """
import shutil, sys, time
from pathlib import Path
from modelmill import deployment as deployments, recipe as recipes
from modelmill.line import Job
from modelmill.runners.containers import describe
from modelmill.runners.kubeflow import compile_to

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
import kfp, kfp.kubernetes
started = time.monotonic()
for number in range(20):
    path = out / f"recipe-{number}.yaml"
    shutil.copy(folder / "recipes" / "demo.yaml", path)
    located = recipes.load(path)
    compile_to(describe(Job(located, deployments.load(folder / "deployment.yaml"))), out / f"pipeline-{number}.yaml")
    if number == 0:
        print(time.monotonic() - started)
print(time.monotonic() - started)
"""
