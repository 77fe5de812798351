"""A whole run of the line in the pods that Airflow's provider makes, and what becomes of pods that fail.

Airflow runs the DAG, deferral and all; a cluster of one node (tests/cluster.py) takes the pods and podman runs them;
the store is S3 on loopback, with its key in a Kubernetes secret.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cluster import Cluster, cluster
from environments import ROOT, airflow_environment, airflow_python, asked_airflow
from modelmill.cli.main import app
from modelmill.core import records
from modelmill.core.local_store import LocalStore
from modelmill.core.stores import open_store
from modelmill.runners.orchestrated import safe_name
from modelmill.runners.result import RunDocument
from podman import Podman
from seaweed import Seaweed, seaweed
from whole_line import make_recipe, run_in_this_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PLANTED = "a-signing-key-that-no-one-may-see"


@dataclass
class Ran:
    """A run and what was seen of it."""

    result: dict[str, Any]
    log: str
    cluster: Cluster
    document: RunDocument
    local: RunDocument
    server: Seaweed
    home: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


@pytest.fixture(scope="module")
def s3(server: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The server as this process's S3, too; its environment."""
    variables = server.environment(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patched:
        for name, value in variables.items():
            patched.setenv(name, value)
        yield variables


@pytest.fixture(scope="module")
def secrets(podman: Podman, server: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kubernetes secret's name: the store's key and a signing key."""
    name = f"modelmill-test-{os.getpid()}"
    values = {"id": server.access_key, "key": server.secret_key, "signing": PLANTED}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    file = tmp_path_factory.mktemp("secret") / "secret.yaml"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
    file.write_text(json.dumps(secret), "utf-8")
    created = podman("secret", "create", name, file)
    assert created.returncode == 0, created.stderr
    yield name
    podman("secret", "rm", name)


def _pushed(folder: Path, store: str) -> str:
    ended = CliRunner().invoke(app, ["push", str(folder), "--store", store, "--json"])
    assert ended.exit_code == 0, ended.output
    source: str = json.loads(ended.stdout)["source"]
    return source


@pytest.fixture(scope="module")
def ran(
    podman: Podman,
    cpu_image: str,
    server: Seaweed,
    s3: dict[str, str],
    secrets: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Ran:
    folder = tmp_path_factory.mktemp("pods")
    store = f"s3://{server.bucket}/line"
    recipes, made = folder / "recipes", folder / "made"
    recipes.mkdir()
    made.mkdir()
    recipe = yaml.safe_load(make_recipe(made).read_text("utf-8"))
    recipe["model"]["source"], recipe["data"]["source"] = _pushed(made / "model", store), _pushed(made / "rows", store)
    (recipes / "small.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    deployment = {
        "store": store,
        "images": {"cpu": cpu_image},
        "pull_policy": "Never",
        "pools": {"cpu": {"node_selector": {"pool": "cpu"}, "tolerations": [{"key": "batch"}]}},
        # A training's key holds its threads: as many as it has here.
        "resources": {"cpu": str(len(os.sched_getaffinity(0))), "memory": "3Gi"},
        "env": {name: s3[name] for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED")},
        "secrets": [
            {"name": "AWS_ACCESS_KEY_ID", "secret": secrets, "key": "id"},
            {"name": "AWS_SECRET_ACCESS_KEY", "secret": secrets, "key": "key"},
        ],
        "release_secrets": [{"name": "SIGNING_KEY", "secret": secrets, "key": "signing"}],
        "start_minutes": 1,
        "keep_pods": "never",
    }
    (folder / "deployment.yaml").write_text(yaml.safe_dump(deployment), "utf-8")
    home = folder / "airflow"
    with cluster(podman, folder / "cluster", {"pool": "cpu"}) as (pods, kubeconfig):
        result, log = _run(
            home,
            "small",
            KUBECONFIG=str(kubeconfig),
            MODELMILL_RECIPES=str(recipes),
            MODELMILL_DEPLOYMENT=str(folder / "deployment.yaml"),
        )
    record = records.read_run(open_store(store), safe_name(result["run"]))
    assert record is not None
    document = RunDocument.model_validate(record.document)
    local = run_in_this_process(recipes / "small.yaml", LocalStore(folder / "local"))
    return Ran(result, log, pods, document, local, server, home)


def _run(home: Path, dag: str, **variables: str) -> tuple[dict[str, Any], str]:
    """Run a DAG of the project's own DAG file; what became of it, and Airflow's log."""
    environment = airflow_environment(home, **variables)
    dag_file = shutil.copy(ROOT / "dags" / "modelmill_dag.py", home / "dags")
    airflow = [str(airflow_python()), "-m", "airflow", "db", "migrate"]
    migrated = subprocess.run(airflow, env=environment, capture_output=True, text=True, check=False)
    assert migrated.returncode == 0, migrated.stderr[-3000:]
    script = ROOT / "tests" / "orchestrators" / "run_in_airflow.py"
    found, log = asked_airflow(script, dag_file, dag, environment=environment, timeout=900)
    return found[dag], log


def test_a_run_in_pods_ends_in_the_bytes_of_the_local_runner(ran: Ran) -> None:
    assert ran.result["state"] == "success", ran.log[-5000:]
