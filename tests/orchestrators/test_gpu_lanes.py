"""A recipe with lanes on a CPU and on GPUs: each lane's tasks stand where its model serves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import environments
from modelmill import recipe as recipes
from modelmill.core.errors import DeploymentError
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners.containers import Container, describe
from modelmill.runners.kubeflow import compile_to
from normal_form import of_kubeflow, of_line

pytest.importorskip("kfp")

DEPLOYMENT = {
    "store": "s3://models/line",
    "images": {
        "cpu": "registry.example/modelmill-cpu:1",
        "gpu": "registry.example/modelmill-gpu:1",
        "light": "registry.example/modelmill-light:1",
    },
    "pools": {
        "cpu": {"node_selector": {"pool": "cpu"}},
        "gpu": {
            "node_selector": {"pool": "gpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
            "accelerator": "nvidia.com/gpu",
        },
    },
}
LANES = [
    {"name": "cpu-int8", "precision": "int8"},
    {"name": "cuda", "device": "gpu", "runtime": "onnxruntime-cuda", "precision": ["fp16", "float32"]},
    {"name": "tensorrt", "device": "gpu", "runtime": "onnxruntime-tensorrt", "hardware_class": "gpu/nvidia-l4"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    recipe = yaml.safe_load((environments.ROOT / "pipelines" / "recipes" / "demo.yaml").read_text("utf-8"))
    recipe["targets"] = LANES
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    (folder / "deployment.yaml").write_text(yaml.safe_dump(DEPLOYMENT), "utf-8")
    return folder


def described(folder: Path, deployment: dict[str, object]) -> list[Container]:
    located = recipes.load(folder / "recipe.yaml")
    return list(describe(Job(located, Deployment.model_validate(deployment))).containers)


def test_the_compiled_pipeline_of_gpu_lanes_is_the_line(folder: Path) -> None:
    line = of_line(folder / "recipe.yaml", folder / "deployment.yaml")
    located = recipes.load(folder / "recipe.yaml")
    compile_to(describe(Job(located, Deployment.model_validate(DEPLOYMENT))), folder / "pipeline.yaml")
    assert of_kubeflow(folder / "pipeline.yaml") == line
    assert len(line["tasks"]) == 3 + 3 + 8 * 3 + 1


def test_what_computes_in_a_gpu_lane_stands_on_the_gpu_pool_with_the_gpu_image(folder: Path) -> None:
    for task in described(folder, DEPLOYMENT):
        # A gate compares numbers, wherever they were taken.
        computes = task.lane in {"cuda", "tensorrt"} and not task.id.startswith("gate.")
        assert (task.image == "registry.example/modelmill-gpu:1") is computes, task.id
        assert task.pool.node_selector == {"pool": "gpu" if computes else "cpu"}, task.id
        assert task.accelerators == int(computes), task.id


def test_a_deployment_without_a_gpus_image_is_told_so(folder: Path) -> None:
    images = {"images": {"cpu": "registry.example/modelmill-cpu:1"}}
    with pytest.raises(DeploymentError, match=r"images has no entry for the device gpu, on which export\.cuda runs"):
        described(folder, {**DEPLOYMENT, **images})
