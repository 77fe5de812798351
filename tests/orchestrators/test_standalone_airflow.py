"""DAGs of somebody's own with our steps in them: what each step becomes, what is refused, and the examples."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import lane_artifacts
from environments import ROOT, airflow_environment, airflow_python, asked_airflow, in_airflow
from modelmill.cli.main import app
from modelmill.runners.containers import SETTINGS_VARIABLE
from podman import Podman
from seaweed import Seaweed

ASK = ROOT / "tests" / "orchestrators" / "ask_standalone.py"
EXAMPLES = ROOT / "dags" / "examples"
LABELS = ["card", "money", "account"]


def ask(folder: Path, mode: str, dag_file: str, **said: Any) -> Any:
    return in_airflow(
        ASK,
        mode,
        EXAMPLES / dag_file,
        json.dumps(said),
        home=folder / "home",
        MODELMILL_DEPLOYMENT=str(folder / "deployment.yaml"),
        MODELMILL_RECIPE_FILE=str(ROOT / "pipelines" / "recipes" / "demo.yaml"),
    )


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("steps")
    deployment = {
        "store": "s3://models/line",
        "secrets": [{"name": "AWS_SECRET_ACCESS_KEY", "secret": "s3", "key": "secret"}],
        "release_secrets": [{"name": "SIGNING_KEY", "secret": "sign", "key": "key"}],
        "steps": {"optimize": {"resources": {"cpu": "4", "memory": "16Gi"}}},
    }
    (folder / "deployment.yaml").write_text(yaml.safe_dump(deployment), "utf-8")
    found: dict[str, Any] = ask(folder, "steps", "nightly_line.py")
    return found


def _base(pod: dict[str, Any]) -> dict[str, Any]:
    base: dict[str, Any] = next(item for item in pod["spec"]["containers"] if item["name"] == "base")
    return base


def _variables(pod: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value") for item in _base(pod)["env"]}


def test_a_step_runs_on_the_digests_that_others_tell(steps: dict[str, Any]) -> None:
    zeros, ones = "0" * 64, "1" * 64
    given = {
        name: [value for flag, value in itertools.pairwise(command) if flag == "--input"]
        for name, pod in steps["pods"].items()
        for command in [_base(pod)["command"]]
    }
    assert given == {
        "small.export": [f"checkpoint=sha256:{zeros}"],
        "small.fuse_It": ["model=sha256:e"],
        "small.publish": [
            "models.cpu=sha256:f",
            f"choices.cpu=sha256:{zeros}",
            f"verdicts.cpu=s3://models/line/artifacts/{ones}",
        ],
    }
    assert _base(steps["pods"]["small.fuse_It"])["command"][:3] == ["modelmill", "step", "optimize"]
    assert steps["upstream"] == {
        "small.mine": [],
        "small.export": ["small.mine"],
        "small.fuse_It": ["small.export"],
        "small.publish": ["small.fuse_It"],
    }


def test_its_settings_stay_text_and_its_secrets_references(steps: dict[str, Any]) -> None:
    variables = {name: _variables(pod) for name, pod in steps["pods"].items()}
    settings = json.loads(base64.urlsafe_b64decode(variables["small.publish"][SETTINGS_VARIABLE]))
    assert settings["model"] == "{{ 6 * 7 }}"
    assert {name for name, found in variables.items() if "SIGNING_KEY" in found} == {"small.publish"}
    assert all(found["AWS_SECRET_ACCESS_KEY"] is None for found in variables.values())


def test_its_pod_is_what_the_deployment_says(steps: dict[str, Any]) -> None:
    pod = steps["pods"]["small.fuse_It"]
    assert _base(pod)["resources"]["limits"] == {"cpu": "4", "memory": "16Gi"}
    assert pod["metadata"]["name"].startswith("fuse-it-")
    accounts = {name: pod["spec"]["serviceAccountName"] for name, pod in steps["pods"].items()}
    assert accounts["small.publish"] == "modelmill-release"
    assert accounts["small.export"] == "modelmill-work"
    assert steps["serialized"] == 4
    assert steps["heavy"] == []


def test_what_is_wrong_is_said_when_the_dag_is_parsed(steps: dict[str, Any]) -> None:
    said = {
        "step": "did you mean export?",
        "missing input": "needs the input checkpoint",
        "unknown input": "has no input chekpoint",
        "setting": "did you mean opset?",
        "value": "greater than or equal to 17",
        "template": "neither a digest nor an artifact's address",
        "operator": "int is nothing that tells an artifact's digest",
        "type": "optimize makes: model",
        "port": "an output modle",
        "lanes": "a mapping from lane to artifact",
        "task": "give the task another task_id",
        "task's name": "'a b {{ x }}' cannot name a task",
        "runtime": "runtime: input should be 'onnxruntime', ",
        "ML task": "task: there is no task 'text-clasification': did you mean text-classification?",
        "device": "add images.tpu",
    }
    assert set(steps["refusals"]) == {*said, "right"}
    assert steps["refusals"]["right"] == ""
    for name, words in said.items():
        assert words in steps["refusals"][name], name


def _production(folder: Path, checkpoint: Path, store: str) -> str:
    """A store in which the channel production of the model tickets names a bundle."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lane_artifacts, "LABELS", LABELS)
        lane = lane_artifacts.judge_lane(folder / "lane", checkpoint)
    inputs = (("models", "model"), ("choices", "choice"), ("verdicts", "verdict"))
    arguments = [item for name, port in inputs for item in ("--input", f"{name}={lane[port]}")]
    sets = ["--set", "model=tickets", "--set", "channel=production"]
    ended = CliRunner().invoke(app, ["component", "publish", *arguments, *sets, "--store", store])
    assert ended.exception is None, ended.exception
    return store


def test_the_example_checks_what_production_serves(
    tmp_path: Path, tiny_bert: Path, s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    store = _production(tmp_path, tiny_bert, f"s3://{s3_server.bucket}/production")
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump({"store": store}), "utf-8")
    found = ask(tmp_path, "until-step", "nightly_check.py")
    assert found["upstream"] == {
        "serving_model": [],
        "labelled_tickets": [],
        "evaluate": ["labelled_tickets", "serving_model"],
        "judge": ["evaluate"],
    }
    pointer = tmp_path / "pointer.json"
    command = [str(pointer) if text == "/airflow/xcom/return.json" else text for text in _base(found["pod"])["command"]]
    variables = {name: value for name, value in _variables(found["pod"]).items() if value}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in variables.items():
            patched.setenv(name, value)
        ended = CliRunner().invoke(app, command[1:])
    assert ended.exception is None, ended.exception
    told = json.loads(pointer.read_text("utf-8"))
    assert set(told) == {"predictions", "key", "facts"}
    words = ask(tmp_path, "judge", "nightly_check.py", facts=told["facts"])
    assert words == f"{told['facts']['accuracy']:.3f} of 60 tickets: look at it"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_example_runs_as_a_dag_with_its_step_in_a_container(
    podman: Podman, cpu_image: str, tmp_path: Path, tiny_bert: Path
) -> None:
    home, socket = tmp_path / "home", tmp_path / "podman.sock"
    store = _production(tmp_path, tiny_bert, str(tmp_path / "store"))
    deployment = {"store": store, "backend": "docker", "images": {"cpu": cpu_image}}
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(deployment), "utf-8")
    environment = airflow_environment(
        home, DOCKER_HOST=f"unix://{socket}", MODELMILL_DEPLOYMENT=str(tmp_path / "deployment.yaml")
    )
    shutil.copyfile(EXAMPLES / "nightly_check.py", home / "dags" / "nightly_check.py")
    subprocess.run(
        [airflow_python(), "-m", "airflow", "db", "migrate"], env=environment, check=True, capture_output=True
    )
    service = podman.start("system", "service", "--time", "0", f"unix://{socket}")
    try:
        script = ROOT / "tests" / "orchestrators" / "run_in_airflow.py"
        ended, _ = asked_airflow(
            script, home / "dags" / "nightly_check.py", "dag", environment=environment, timeout=900
        )
    finally:
        service.kill()
        service.communicate()
    found = ended["dag"]
    assert found["state"] == "success"
    told = {(task, key): value for task, key, value in found["told"]}
    assert set(told["evaluate", "return_value"]) == {"predictions", "key", "facts"}
    assert told["evaluate", "predictions"].startswith("sha256:")
    assert told["judge", "return_value"].endswith(" of 60 tickets: look at it")


def test_the_example_of_a_whole_line_stands_between_its_neighbours(steps: dict[str, Any]) -> None:
    assert steps["line"]["begin"] == ["refresh"]
    assert steps["line"]["tell"] == ["finish"]
    assert "decide" in steps["line"]["publish"]


def test_a_step_without_settings_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modelmill.cli.main", "step", "export", "--store", str(tmp_path / "store")]
    ended = subprocess.run([*command, "--input", f"checkpoint={'0' * 64}"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "the step has no settings" in ended.stderr
