"""The light image: what is in it, whom it runs as, how it ends, and that its layers follow from its source."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podman import LIGHT, ROOT, TIME, Podman, require_podman

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
DOCKERFILE = ROOT / "images" / "light" / "Dockerfile"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    """podman, and the image built from the working tree."""
    folder = tmp_path_factory.mktemp("podman")
    found = require_podman(folder)
    labels = {"version": "0.1.0", "revision": "4711", "source": "ssh://git.example/modelmill"}
    options = [f"--label=org.opencontainers.image.{name}={text}" for name, text in labels.items()]
    with found.building():
        found.build(DOCKERFILE, LIGHT, found.base(folder), TIME, *options)
    return found


def _inspect(podman: Podman, image: str) -> Any:
    return json.loads(podman("image", "inspect", image).stdout)[0]


def _labels(found: Any) -> dict[str, str]:
    return {name.removeprefix("org.opencontainers.image."): text for name, text in found["Labels"].items()}


def test_it_is_small_and_says_what_it_is(podman: Podman) -> None:
    found = _inspect(podman, LIGHT)
    assert found["Size"] <= 900e6
    assert not found["Config"].get("Entrypoint")
    assert found["Config"]["User"] == "10001:10001"
    told = {"title": "modelmill-light", "version": "0.1.0", "revision": "4711", "source": "ssh://git.example/modelmill"}
    assert _labels(found).items() >= told.items()
    assert podman("run", "--rm", LIGHT).stdout.split()[:2] == ["Usage:", "modelmill"]


def test_it_has_git_and_no_framework_no_build_tool_and_no_cache(podman: Podman) -> None:
    script = """
import importlib.util, pathlib, shutil, subprocess, sys
print([name for name in ("torch", "onnxruntime", "transformers", "pyarrow", "pip", "setuptools", "ensurepip")
       if importlib.util.find_spec(name)])
print([name for name in ("git", "ssh", "ssh-keygen") if not shutil.which(name)])
print([name for name in ("pip", "pip3", "gcc", "cc", "make", "curl") if shutil.which(name)])
print([str(path) for path in pathlib.Path("/").glob("**/.cache") if any(path.iterdir())])
lib = pathlib.Path(sys.prefix, "lib")
sources = set(lib.glob("**/*.py"))
compiled = {path.parent.parent / f"{path.name.partition('.')[0]}.py" for path in lib.glob("**/*.pyc")}
print(len(sources) > 1000, len(sources - compiled))
"""
    ended = podman("run", "--rm", LIGHT, "python", "-c", script)
    assert ended.stdout.splitlines() == ["[]", "[]", "[]", "[]", "True 0"], ended.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--read-only", "--tmpfs=/tmp", "--tmpfs=/work"],
        ["--user=123456:0"],
        ["--user=123456:0", "--read-only", "--tmpfs=/tmp", "--tmpfs=/work", "--cap-drop=all"],
    ],
    ids=["a read-only root", "a number made up", "both, without capabilities"],
)
def test_a_task_runs_with(options: list[str], podman: Podman) -> None:
    script = (
        "touch /opt/modelmill/x 2>/dev/null && exit 9; touch ~/x $(mktemp -d)/y && modelmill runs list --store store"
    )
    ended = podman("run", "--rm", *options, LIGHT, "bash", "-c", script)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_task_that_waits_ends_at_once_when_its_container_is_stopped(
    podman: Podman, silent_server: int, tmp_path: Path
) -> None:
    store = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent_server}", "AWS_REGION": "x"}
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    variables = [f"--env={name}={text}" for name, text in {**store, **keys}.items()]
    task = ["modelmill", "task", "finish", "--store", "s3://bucket/line", "--run", "one"]
    name = podman("run", "--detach", "--network=host", *variables, LIGHT, *task).stdout.strip()
    try:
        time.sleep(3)
        assert podman("inspect", "--format={{.State.Running}}", name).stdout.strip() == "true"
        started = time.monotonic()
        podman("stop", "--time=30", name)
        assert time.monotonic() - started < 10
        assert podman("inspect", "--format={{.State.ExitCode}}", name).stdout.strip() == "143"
        assert podman("logs", name).stderr == ""
    finally:
        podman("rm", "--force", "--time=0", name)


def test_two_builds_have_the_same_layers(podman: Podman, tmp_path: Path) -> None:
    again = f"{LIGHT}-again"
    podman.build(DOCKERFILE, again, podman.base(tmp_path), TIME, "--no-cache", "--build-arg=REVISION=4712")
    try:
        first, second = _inspect(podman, LIGHT), _inspect(podman, again)
        assert len(first["RootFS"]["Layers"]) == 5
        assert second["RootFS"]["Layers"] == first["RootFS"]["Layers"]
        assert _labels(second)["revision"] == "4712"
    finally:
        podman("rmi", again)
