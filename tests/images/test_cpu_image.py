"""The CPU image: what is in it, and that its containers need neither root nor a network nor a root to write to."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from modelmill import recipe as recipes
from modelmill.deployment import Backend, Deployment
from modelmill.line import Job
from modelmill.runners.containers import WRITABLE, Container, describe
from orchestrate import orchestrate
from podman import Podman
from whole_line import make_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_image_is_lean_and_runs_as_nobody(podman: Podman, cpu_image: str) -> None:
    size = int(json.loads(podman("image", "inspect", cpu_image).stdout)[0]["Size"])
    assert size <= 2.2e9
    script = "id -u; touch /opt/here; command -v gcc pip make; find / -name '*.pyo' -o -path '*/.cache/pip' | head -1"
    ended = podman("run", "--rm", cpu_image, "bash", "-c", script)
    assert ended.stdout.split() == ["10001"]
    assert "Permission denied" in ended.stderr
    config = json.loads(podman("image", "inspect", cpu_image).stdout)[0]
    assert not config["Config"].get("Entrypoint")
    assert config["Labels"]["org.opencontainers.image.version"] == "0.1.0"


def test_containers_on_a_local_store_need_no_network_no_root_and_write_their_folders_alone(
    podman: Podman, cpu_image: str, tmp_path: Path
) -> None:
    # The whole line runs in its pods in tests/orchestrators/test_pods_run.py; here the tasks that read from outside.
    path = make_recipe(tmp_path)
    value = yaml.safe_load(path.read_text("utf-8"))
    value["model"]["source"], value["data"]["source"] = f"file:{tmp_path / 'model'}", f"file:{tmp_path / 'rows'}"
    path.write_text(yaml.safe_dump(value), "utf-8")
    shared = tmp_path / "shared"
    shared.mkdir()
    # The container's user is not ours.
    for folder in (tmp_path.parent.parent, tmp_path.parent, tmp_path, shared):
        folder.chmod(0o777 if folder is shared else 0o755)
    for file in (tmp_path / "model").iterdir():
        file.chmod(0o644)

    def execute(container: Container, arguments: list[str]) -> str | None:
        if container.id not in {"begin", "fetch"}:
            return "not run here"
        variables = [item for name, text in container.env.items() for item in ("--env", f"{name}={text}")]
        mounts = ["-v", f"{tmp_path}:{tmp_path}:ro", "-v", f"{shared}:{shared}"]
        folders = [item for path in WRITABLE.values() for item in ("--tmpfs", f"{path}:mode=1777")]
        ended = podman(
            "run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--user=123456:0",
            *folders, *mounts, *variables, container.image, *arguments,
        )  # fmt: skip
        return None if ended.returncode == 0 else ended.stderr

    store, images = str(shared / "store"), {"cpu": cpu_image}
    deployment = Deployment(store=store, backend=Backend.DOCKER, mounts=[str(tmp_path)], images=images)
    found = orchestrate(describe(Job(recipes.load(path), deployment)), shared, "containers", execute=execute)
    assert set(found.pointers) == {"begin", "fetch"}, found.errors
    assert os.geteuid() != 123456
    assert {file.stat().st_uid for file in (shared / "store").rglob("*")} == {123456}
