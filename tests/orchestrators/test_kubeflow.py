"""`modelmill compile`: what it writes and what it refuses."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from environments import ROOT

pytest.importorskip("kfp")
DEMO = ROOT / "pipelines" / "recipes" / "demo.yaml"


def _compile(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelmill.cli.main", "compile", *(str(item) for item in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_committed_pipelines_are_what_the_recipes_compile_to() -> None:
    ended = subprocess.run(
        [sys.executable, ROOT / "pipelines" / "build.py", "--check"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_a_pipeline_holds_the_recipe_in_no_argument_and_no_secret(tmp_path: Path) -> None:
    output = tmp_path / "demo.yaml"
    ended = _compile(DEMO, "--output", output, "--store", "s3://bucket/line")
    assert ended.returncode == 0, ended.stderr
    executors = yaml.safe_load(output.read_text("utf-8").split("\n---")[0])["deploymentSpec"]["executors"]
    variables = {item["name"]: item["value"] for item in executors["exec-begin"]["container"]["env"]}
    assert set(variables) == {"MODELMILL_CONTAINER_IMAGE", "MODELMILL_RECIPE"}
    assert json.loads(base64.urlsafe_b64decode(variables["MODELMILL_RECIPE"]))["name"] == "demo"
    assert not any("botocore-operations" in " ".join(item["container"]["command"]) for item in executors.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"source": "file:rows"}}, "modelmill push"),
        ({"targets": [{"name": "x", "precision": "int9"}]}, "targets"),
    ],
)
def test_a_recipe_that_no_cluster_can_run_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(DEMO.read_text("utf-8")), **changes}), "utf-8")
    ended = _compile(recipe, "--output", tmp_path / "out.yaml", "--store", "s3://bucket/line")
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out.yaml").exists()


def test_a_store_on_this_machine_and_an_output_of_another_kind_are_refused(tmp_path: Path) -> None:
    for arguments, said in (
        (["--output", tmp_path / "out.yaml"], "no container has"),
        (["--output", tmp_path / "out.json", "--store", "s3://bucket/line"], "does not end in .yaml"),
        (["--output", tmp_path / "out.yaml", "--store", "s3://bucket/l", "--set", "task=other"], "structural"),
    ):
        ended = _compile(DEMO, *arguments)
        assert ended.returncode == 2, arguments
        assert said in ended.stderr


def test_a_store_that_holds_a_placeholder_of_kubeflows_is_refused(tmp_path: Path) -> None:
    ended = _compile(DEMO, "--output", tmp_path / "out.yaml", "--store", "s3://bucket/a{{$}}b")
    assert ended.returncode == 2
    assert "Kubeflow would take {{$ in 's3://bucket/a{{$}}b' for a placeholder" in ended.stderr


def test_a_step_that_is_not_in_the_line_is_refused_by_name(tmp_path: Path) -> None:
    deployment = tmp_path / "deployment.yaml"
    deployment.write_text("store: s3://bucket/l\nsteps: {retrian: {retries: 1}}\n", "utf-8")
    ended = _compile(DEMO, "--output", tmp_path / "out.yaml", "--deployment", deployment)
    assert ended.returncode == 2
    assert "steps.retrian" in ended.stderr


@pytest.mark.parametrize("output", ["file/out.yaml", "folder.yaml"])
def test_an_output_that_cannot_be_written_is_told_and_leaves_nothing(tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    (tmp_path / "folder.yaml").mkdir()
    before = sorted(tmp_path.rglob("*"))
    ended = _compile(DEMO, "--output", tmp_path / output, "--store", "s3://bucket/line")
    assert ended.returncode == 2
    assert "cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sorted(tmp_path.rglob("*")) == before
