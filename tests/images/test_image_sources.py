"""The images as they are written: Dockerfiles and locks, without an engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import modelmill
from modelmill.core.contract import StepContract
from modelmill.line import LINE
from podman import ROOT

IMAGES = ("cpu", "gpu", "light")
EXTRAS = {"cpu": ("ml", "s3"), "gpu": ("gpu", "s3"), "light": ("s3",)}
HADOLINT = Path(sys.executable).parent / "hadolint"


def _dockerfile(image: str) -> Path:
    return ROOT / "images" / image / "Dockerfile"


def _lock(path: Path) -> dict[str, tuple[str, set[str]]]:
    """Package → its version and the hashes of its files."""
    entries = re.findall(r"^([a-z0-9._-]+)==(\S+) \\\n((?:    --hash=.+\n)+)", path.read_text("utf-8"), re.MULTILINE)
    return {name: (version, set(re.findall(r"sha256:[0-9a-f]{64}", hashes))) for name, version, hashes in entries}


@pytest.fixture(scope="module")
def locks() -> dict[str, dict[str, tuple[str, set[str]]]]:
    return {image: _lock(ROOT / "images" / image / "requirements.txt") for image in IMAGES}


@pytest.mark.parametrize("image", IMAGES)
def test_hadolint_finds_nothing(image: str) -> None:
    ended = subprocess.run([HADOLINT, _dockerfile(image)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_hadolint_finds_what_is_planted(tmp_path: Path) -> None:
    planted = tmp_path / "Dockerfile"
    planted.write_text(_dockerfile("cpu").read_text("utf-8") + "RUN cd /tmp && sudo ls\n", "utf-8")
    assert subprocess.run([HADOLINT, planted], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("image", ["gpu", "light"])
def test_the_dockerfiles_differ_in_their_name_alone(image: str) -> None:
    def body(name: str) -> str:
        text = re.sub(r"\A(#.*\n)+", "", _dockerfile(name).read_text("utf-8"))
        assert text.count(f"ARG IMAGE={name}\n") == 1
        return text.replace(f"ARG IMAGE={name}\n", "")

    assert body(image) == body("cpu")


def test_the_images_are_labelled_with_the_packages_version() -> None:
    assert f"ARG VERSION={modelmill.__version__}\n" in _dockerfile("cpu").read_text("utf-8")


@pytest.mark.parametrize("image", IMAGES)
def test_a_lock_pins_each_package_that_its_extras_ask_for(
    image: str, locks: dict[str, dict[str, tuple[str, set[str]]]]
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"], *(item for extra in EXTRAS[image] for item in _extra(project, extra))]
    for requirement in map(Requirement, asked):
        version, hashes = locks[image][canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement
        assert hashes, requirement
    text = (ROOT / "images" / image / "requirements.txt").read_text("utf-8")
    assert len(locks[image]) == len(re.findall("^[a-z0-9]", text, re.MULTILINE))
    assert not re.search(r"://| @ ", text)


def _extra(project: dict[str, dict[str, list[str]]], name: str) -> list[str]:
    return project["optional-dependencies"][name]


@pytest.mark.parametrize("image", ["gpu", "light"])
def test_a_package_has_the_same_version_and_files_in_each_image(
    image: str, locks: dict[str, dict[str, tuple[str, set[str]]]]
) -> None:
    shared = locks["cpu"].keys() & locks[image].keys() - {"torch"}
    assert len(shared) > 20
    assert {name: locks[image][name] for name in shared} == {name: locks["cpu"][name] for name in shared}


def test_the_images_hold_the_versions_that_are_tested_here(
    locks: dict[str, dict[str, tuple[str, set[str]]]],
) -> None:
    here = _lock(ROOT / "requirements" / "cpu.txt")
    differing = {name: (at, here[name][0]) for name, (at, _) in locks["cpu"].items() if here[name][0] != at}
    assert differing == {}


def test_the_gpu_lock_is_of_cudas_builds(locks: dict[str, dict[str, tuple[str, set[str]]]]) -> None:
    gpu = locks["gpu"]
    assert gpu["torch"][0] == "2.13.0"
    assert gpu["torch"][1].isdisjoint(locks["cpu"]["torch"][1])
    assert gpu["onnxruntime-gpu"][0] == locks["cpu"]["onnxruntime"][0]
    assert "onnxruntime" not in gpu
    # onnxruntime-gpu 1.31 loads CUDA 13 and cuDNN 9 from these, by its own requirements for extras cuda and cudnn.
    majors = {name: gpu[name][0].split(".")[0] for name in ("nvidia-cuda-runtime", "nvidia-cufft", "nvidia-cudnn-cu13")}
    assert majors == {"nvidia-cuda-runtime": "13", "nvidia-cufft": "12", "nvidia-cudnn-cu13": "9"}
    assert {"nvidia-cublas", "nvidia-curand", "nvidia-cuda-nvrtc"} <= gpu.keys()


def _work_of(contract: StepContract) -> str:
    return f"modelmill.steps.{contract.name.replace('-', '_')}"


def test_the_light_image_reads_no_model_and_no_data_set(locks: dict[str, dict[str, tuple[str, set[str]]]]) -> None:
    readers = {"torch", "transformers", "onnxruntime", "onnx", "datasets", "pyarrow", "huggingface-hub", "safetensors"}
    assert readers <= locks["cpu"].keys()
    assert locks["light"].keys().isdisjoint(readers)


def test_light_tasks_load_with_what_the_light_image_has(locks: dict[str, dict[str, tuple[str, set[str]]]]) -> None:
    light = sorted({_work_of(node.contract) for node in LINE if node.contract.light})
    assert light == ["modelmill.steps.gate", "modelmill.steps.publish"]
    found = _load([*light, "modelmill.cli.main", "modelmill.runners.orchestrated"], locks["light"].keys())
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("step", sorted({_work_of(node.contract) for node in LINE if not node.contract.light}))
def test_the_other_steps_do_not(step: str, locks: dict[str, dict[str, tuple[str, set[str]]]]) -> None:
    found = _load([step], locks["light"].keys())
    assert "is not in the light image" in found.stderr


def _load(packages: list[str], installed: Collection[str]) -> subprocess.CompletedProcess[str]:
    """Import all modules of packages in a process that has no other distributions than ``installed``."""
    missing = [
        module
        for module, distributions in metadata.packages_distributions().items()
        if not {canonicalize_name(name) for name in distributions} & {*installed, "modelmill"}
    ]
    script = """
import importlib, json, pkgutil, sys
missing = set(json.loads(sys.argv[1]))
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"{name} is not in the light image", name=name)
sys.meta_path.insert(0, Refuse())
for name in sys.argv[2:]:
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
        # A component is for whoever has kfp and makes a pipeline; no task loads it.
        if not found.name.endswith(".component"):
            importlib.import_module(found.name)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "components")}
    command = [sys.executable, "-c", script, json.dumps(missing), *packages]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
