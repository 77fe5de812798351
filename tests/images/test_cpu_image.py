"""The CPU image: what is in it, and the whole line in its containers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from modelmill import recipe as recipes
from modelmill.core import records
from modelmill.core.local_store import LocalStore
from modelmill.core.stores import open_store
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners.containers import Container, describe
from modelmill.runners.result import RunDocument
from orchestrate import orchestrate
from podman import CPU, LIGHT, ROOT, TIME, Podman, require_podman
from whole_line import make_recipe, reproducible_digests, run_in_this_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    """podman, and the images built from the working tree."""
    folder = tmp_path_factory.mktemp("podman")
    found = require_podman(folder)
    found.build(ROOT / "images" / "cpu" / "Dockerfile", CPU, found.base(folder))
    found.build(ROOT / "images" / "light" / "Dockerfile", LIGHT, found.base(folder), TIME)
    return found


def test_the_image_is_lean_and_runs_as_nobody(podman: Podman) -> None:
    size = int(json.loads(podman("image", "inspect", CPU).stdout)[0]["Size"])
    assert size <= 2.2e9
    script = "id -u; touch /opt/here; command -v gcc pip make; find / -name '*.pyo' -o -path '*/.cache/pip' | head -1"
    ended = podman("run", "--rm", CPU, "bash", "-c", script)
    assert ended.stdout.split() == ["10001"]
    assert "Permission denied" in ended.stderr
    config = json.loads(podman("image", "inspect", CPU).stdout)[0]
    assert not config["Config"].get("Entrypoint")
    assert config["Labels"]["org.opencontainers.image.version"] == "0.1.0"


def test_the_line_in_confined_containers_ends_in_the_bytes_of_the_local_runner(podman: Podman, tmp_path: Path) -> None:
    make_recipe(tmp_path)
    path = tmp_path / "recipe.yaml"
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
    store = shared / "store"

    def execute(container: Container, arguments: list[str]) -> str | None:
        variables = [item for name, text in container.env.items() for item in ("--env", f"{name}={text}")]
        mounts = ["-v", f"{tmp_path}:{tmp_path}:ro", "-v", f"{shared}:{shared}", "--tmpfs=/tmp", "--tmpfs=/work"]
        confined = ["--network=none", "--read-only", "--user=123456:0", "--cap-drop=all"]
        ended = podman("run", "--rm", *confined, *mounts, *variables, container.image, *arguments)
        return None if ended.returncode == 0 else ended.stderr

    deployment = Deployment(store=str(store), mounts=[str(tmp_path)], images={"cpu": CPU, "light": LIGHT})
    described = describe(Job(recipes.load(path), deployment))
    found = orchestrate(described, shared, "containers", execute=execute)
    assert found.errors == {}
    assert found.pointers["finish"] == "promoted"
    record = records.read_run(open_store(str(store)), "containers")
    assert record is not None
    document = RunDocument.model_validate(record.document)
    local = run_in_this_process(path, LocalStore(tmp_path / "local"))
    assert os.geteuid() != 123456
    assert reproducible_digests(document) == reproducible_digests(local)
    assert document.bundle_digest == local.bundle_digest
