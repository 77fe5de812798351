"""A pipeline of somebody's own with one of our steps in it, run by kfp in containers."""

# kfp reads the annotations themselves: no `from __future__ import annotations` here.

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from environments import ROOT
from kfp_containers import kfp_containers
from lane_artifacts import write_lane_model
from modelmill.core.model import read_model, write_model
from podman import Podman

pytest.importorskip("kfp")
EXAMPLE = ROOT / "pipelines" / "examples" / "nightly_check.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nightly_check", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_compiles_to_our_step_between_foreign_ones(tmp_path: Path) -> None:
    package = tmp_path / "nightly-check.yaml"
    subprocess.run([sys.executable, EXAMPLE, package], check=True, capture_output=True)
    executors = yaml.safe_load(package.read_text("utf-8"))["deploymentSpec"]["executors"]
    found = {name: item["container"]["image"] for name, item in executors.items() if "container" in item}
    assert found == {
        "exec-labelled-tickets": "python:3.11-slim-bookworm",
        "exec-evaluate-candidate": "modelmill-cpu:0.1.0",
        "exec-judge": "python:3.11-slim-bookworm",
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore:Task 'evaluate-candidate'. settings .* have no effect:UserWarning")
def test_the_example_runs_in_containers_and_its_metrics_show(
    podman: Podman, cpu_image: str, example: ModuleType, tiny_bert: Path, tmp_path: Path
) -> None:
    steps, foreign = cpu_image, podman.base(tmp_path)
    root = tmp_path / "root"
    model = write_lane_model(root / "bundle", tiny_bert)
    document = read_model(model)
    write_model(model, document.model_copy(update={"labels": ["card", "money", "account"]}))
    with kfp_containers(podman, root, steps, foreign) as ran:
        run = example.nightly_check(model_uri=str(model), least=1.01)
    assert [command[:3] for command in ran if command[0] == "modelmill"] == [
        ["modelmill", "component", "evaluate-candidate"]
    ]
    assert re.fullmatch(r"0\.\d{3} of 60 tickets: look at it, at (card|money|account) first", run.outputs["Output"])


def test_a_condition_takes_a_gates_decision(tmp_path: Path) -> None:
    from kfp import compiler, dsl

    from modelmill.kubeflow import gate, publish

    @dsl.pipeline(name="promote")
    def promote(uri: str, store: str) -> None:
        one = dsl.importer(artifact_uri=uri, artifact_class=dsl.Artifact).output
        model = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model).output
        rows = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset).output
        judged = gate(
            baseline=one,
            candidate=one,
            measurements=one,
            smoke=one,
            model=model,
            rows=rows,
            task="text-classification",
            target="a",
        )
        with dsl.If(judged.outputs["decision"] == "pass"):
            verdict = judged.outputs["verdict"]
            publish(
                models=model, choices=one, verdicts=verdict, store=store, model="tickets", channel="staging"
            ).set_container_image("registry.example/modelmill-cpu:0.1.0")

    compiler.Compiler().compile(promote, str(tmp_path / "promote.yaml"))
    package = yaml.safe_load((tmp_path / "promote.yaml").read_text("utf-8"))
    (condition,) = [task for name, task in package["root"]["dag"]["tasks"].items() if name.startswith("condition")]
    assert condition["triggerPolicy"]["condition"].endswith("== 'pass'")
    executors = package["deploymentSpec"]["executors"]
    assert executors["exec-publish"]["container"]["image"] == "registry.example/modelmill-cpu:0.1.0"
    assert executors["exec-gate"]["container"]["image"] == "modelmill-cpu:0.1.0"


def test_the_example_says_how_it_is_started() -> None:
    ended = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "usage: python pipelines/examples/nightly_check.py FILE.yaml\n"
