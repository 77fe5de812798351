"""kfp's local runner where the container engine refuses, or goes away: one message, and nothing stays."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelmill import recipe as recipes
from modelmill.core import records
from modelmill.core.errors import DeploymentError, OutsideError
from modelmill.core.local_store import LocalStore
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners import engine, owned, sight
from modelmill.runners.conclusion import failed, record_of
from modelmill.runners.result import RunDocument, Status
from podman import Podman

pytest.importorskip("kfp", reason="kfp is not installed", exc_type=ImportError)
_RECIPE = """
name: small
task: text-classification
model: {source: file:model}
data: {source: file:rows}
targets: [{name: cpu-int8, precision: int8}]
"""
_SILENT = """
FROM {base}
RUN printf '#!/bin/sh\\nexec sleep 300\\n' > /usr/bin/modelmill && chmod +x /usr/bin/modelmill
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELMILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def base(podman: Podman, tmp_path: Path) -> str:
    """An image that has no modelmill."""
    return podman.base(tmp_path)


@pytest.fixture
def silent(podman: Podman, base: str, tmp_path: Path) -> str:
    """An image whose modelmill sleeps."""
    (tmp_path / "Dockerfile").write_text(_SILENT.format(base=base), "utf-8")
    tag = "localhost/modelmill-test-silent:1"
    built = podman("build", "-q", "-f", tmp_path / "Dockerfile", "-t", tag, tmp_path)
    assert built.returncode == 0, built.stderr
    return tag


def _job(folder: Path, image: str) -> Job:
    for name in ("model", "rows"):
        (folder / name).mkdir(parents=True)
    (folder / "recipe.yaml").write_text(_RECIPE, "utf-8")
    return Job(recipes.load(folder / "recipe.yaml"), Deployment(images={"cpu": image}))


def _left(folder: Path) -> list[str]:
    """The containers that a run with its cache in ``folder`` owns."""
    with engine.engine() as address, engine.client(address) as client:
        found = client.containers(all=True, filters={"label": owned.OWNER_LABEL})
    return [item["Id"] for item in found if _is_of(item, folder)]


def _is_of(container: Any, folder: Path) -> bool:
    return str(container["Labels"][owned.OWNER_LABEL]).startswith(str(folder))


def _run(folder: Path, image: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``modelmill run`` as a user types it; Docker's library leaves sockets open where an engine dies."""
    _job(folder / "recipe", image)
    (folder / "deployment.yaml").write_text(f"images: {{cpu: '{image}'}}", "utf-8")
    command = [sys.executable, "-m", "modelmill.cli.main", "run", folder / "recipe" / "recipe.yaml"]
    options = ["--runner", "kubeflow-local", "--store", folder / "store", "--deployment", folder / "deployment.yaml"]
    return subprocess.run(
        [*command, *options], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


def _errors(ended: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in ended.stderr.splitlines() if line.startswith(("error: ", "Traceback"))]


def test_what_the_engine_refuses_is_one_error_of_the_outside_and_leaves_no_container(base: str, tmp_path: Path) -> None:
    ended = _run(tmp_path, base)
    assert ended.returncode == 5, ended.stderr
    (error,) = _errors(ended)
    assert error.startswith("error: the container engine refuses what it was asked: ")
    assert "modelmill" in error
    assert _left(tmp_path) == []


@pytest.fixture
def own_engine(podman: Podman, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of podman's service, and its process, which a test may kill."""
    path = tmp_path / "podman.sock"
    service = podman.start("system", "service", "--time", "0", f"unix://{path}")
    deadline = time.monotonic() + 30
    while not engine._listens(path) and time.monotonic() < deadline:
        time.sleep(0.05)
    yield f"unix://{path}", service
    service.kill()
    service.communicate()


def test_an_engine_that_dies_under_a_task_is_one_error_and_the_next_start_removes_the_container(
    silent: str, own_engine: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    address, service = own_engine

    def kill_when_it_runs() -> None:
        deadline = time.monotonic() + 100
        with engine.client(address) as client:
            while time.monotonic() < deadline:
                if any(_is_of(item, tmp_path) for item in client.containers(filters={"label": owned.OWNER_LABEL})):
                    break
                time.sleep(0.1)
        service.kill()

    killer = threading.Thread(target=kill_when_it_runs)
    killer.start()
    ended = _run(tmp_path, silent, DOCKER_HOST=address)
    killer.join()
    assert ended.returncode == 5, ended.stderr
    (error,) = _errors(ended)
    assert "the container engine is gone, or does not answer" in error
    assert len(_left(tmp_path)) == 1
    with engine.engine() as at, engine.client(at) as client, owned.owning(client):
        pass
    assert _left(tmp_path) == []


@pytest.mark.parametrize(("name", "binds"), [("c:o {{ ds }}", True), ("a,b", False)])
def test_a_path_that_no_engine_can_bind_is_named_before_anything_starts(
    name: str, binds: bool, base: str, tmp_path: Path
) -> None:
    job = _job(tmp_path / name, base)
    with engine.engine() as address, engine.client(address) as client:
        with sight.on_this_machine(job, LocalStore(tmp_path / "store")) as here:
            if binds:
                sight.check_binds(here, client)
                return
            with pytest.raises(DeploymentError, match="cannot bind") as refused:
                sight.check_binds(here, client)
    assert refused.value.where == str(tmp_path / name / "model")


def test_a_failure_that_no_task_could_know_is_kept_in_the_runs_record(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    fields: dict[str, Any] = {"run": "night", "recipe": "small", "recipe_digest": "sha256:" + "0" * 64}
    document = RunDocument(**fields, status=Status.RUNNING, started_at=records.utc_now())
    records.save_run(store, record_of(document))
    failed(store, "night", OutsideError("the container engine is gone"))
    kept = records.read_run(store, "night")
    assert kept is not None
    assert (kept.status, kept.document["error"]) == ("failed", "the container engine is gone")
    failed(store, "unknown", OutsideError("the container engine is gone"))
    assert records.read_run(store, "unknown") is None
