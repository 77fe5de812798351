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

from cluster import Cluster
from cluster_api import cluster
from environments import ROOT, airflow_environment, airflow_python, asked_airflow
from modelmill.cli.main import app
from modelmill.core import records
from modelmill.core.local_store import LocalStore
from modelmill.core.stores import open_store
from modelmill.runners.result import RunDocument, safe_name
from podman import Podman
from seaweed import Seaweed, seaweed
from whole_line import make_recipe, reproducible_digests, run_in_this_process

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
    file = tmp_path_factory.mktemp("secret") / "secret.json"
    # podman 4's form of a Kubernetes secret; later ones take the whole document.
    file.write_text(json.dumps(data), "utf-8")
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
    (folder / "airflow.log").write_text(log, "utf-8")
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
    assert ran.result["state"] == "success"
    assert reproducible_digests(ran.document) == reproducible_digests(ran.local)
    assert ran.document.bundle_digest == ran.local.bundle_digest
    assert not any(row.cached for row in ran.document.steps)
    assert ran.document.channel == "staging"


def test_each_task_was_one_pod_and_none_is_left(ran: Ran) -> None:
    assert {state for state, _ in ran.result["tasks"].values()} == {"success"}
    assert {attempts for _, attempts in ran.result["tasks"].values()} == {1}
    names = sorted(name.rpartition("-")[0] for name in ran.cluster.taken)
    assert names == sorted(task.replace(".", "-") for task in ran.result["tasks"])
    assert ran.cluster.names() == []


def test_what_the_pods_told_is_small_and_comes_from_their_file(ran: Ran) -> None:
    told = {task: value for task, key, value in ran.result["told"] if key == "return_value"}
    assert set(told) == set(ran.result["tasks"])
    assert told["decide"] == "pass"
    assert told["finish"] == "promoted"
    keys = {row.task: row.key for row in ran.document.steps}
    assert {task: told[task] for task in keys} == keys
    assert max(len(value) for _, _, value in ran.result["told"]) < 100


def test_planted_secrets_are_in_no_pod_no_pointer_and_no_log(ran: Ran) -> None:
    seen = {
        "pods": json.dumps(ran.cluster.taken),
        "containers' logs": json.dumps(ran.cluster.logs),
        "Airflow's log": ran.log,
        "XComs": json.dumps(ran.result["told"]),
        "Airflow's database": (ran.home / "airflow.db").read_bytes().decode("latin-1"),
        "Airflow's files": "".join(
            path.read_bytes().decode("latin-1") for path in ran.home.rglob("*") if path.is_file()
        ),
        "the run's record": ran.document.model_dump_json(),
    }
    secrets = (ran.server.secret_key, PLANTED)
    hidden = [base64.b64encode(secret.encode()).decode() for secret in secrets]
    for place, text in seen.items():
        # What is searched is there: each place knows the key of the trained model.
        assert "retrain" in text, place
        assert [secret for secret in (*secrets, *hidden) if secret in text] == [], place
    holders = {name.rpartition("-")[0] for name, pod in ran.cluster.taken.items() if "SIGNING_KEY" in json.dumps(pod)}
    assert holders == {"publish"}


@pytest.fixture(scope="module")
def small_image(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian and nothing else, without root."""
    folder, tag = tmp_path_factory.mktemp("small-image"), f"localhost/modelmill-test-small:{os.getpid()}"
    (folder / "Dockerfile").write_text(
        f"FROM {podman.base(folder)}\nENV PATH=/usr/bin:/bin\nRUN mkdir /work && chown 10001 /work\nUSER 10001\n",
        "utf-8",
    )
    built = podman("build", "-t", tag, folder)
    assert built.returncode == 0, built.stderr
    yield tag
    podman("rmi", tag)


TOUCHES = (
    "touch /tmp/a /work/b && ! touch /etc/c 2> /dev/null && id -u && echo '{\"sum\": 1}' > /airflow/xcom/return.json"
)


@pytest.fixture(scope="module")
def failed(podman: Podman, small_image: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of pods that go wrong each in its way, and the pods that were kept."""
    folder = tmp_path_factory.mktemp("failing")
    limits = {"cpu": "1", "memory": "100Mi"}
    plain = {"image": small_image, "limits": limits, "cmds": ["true"], "on_finish_action": "keep_pod"}
    cases: dict[str, dict[str, Any]] = {
        "good": {**plain, "cmds": ["sh", "-c", TOUCHES]},
        "wrong-input": {**plain, "cmds": ["sh", "-c", "echo said why; exit 2"]},
        "outside": {**plain, "cmds": ["sh", "-c", "exit 5"]},
        "memory": {**plain, "cmds": ["python3", "-c", "print(len(bytearray(10**9)))"]},
        "no-image": {**plain, "image": "localhost/modelmill-none:1"},
        "no-gpu": {**plain, "limits": {**limits, "nvidia.com/gpu": "1"}},
        "root": {**plain, "image": podman.base(folder)},
        "no-secret": {**plain, "secret": "modelmill-no-such-secret"},
    }
    (folder / "cases.json").write_text(json.dumps(cases), "utf-8")
    script = ROOT / "tests" / "orchestrators" / "fail_in_airflow.py"
    with cluster(podman, folder / "cluster", {"pool": "cpu"}) as (pods, kubeconfig):
        environment = airflow_environment(folder / "airflow", KUBECONFIG=str(kubeconfig))
        found, _ = asked_airflow(script, folder / "cases.json", environment=environment)
        found["kept"] = sorted(name.rpartition("-")[0] for name in pods.names())
    return {**found, "logs": pods.logs}


def test_a_pod_writes_its_folders_alone_and_tells_what_its_file_holds(failed: dict[str, Any]) -> None:
    assert failed["good"]["told"] == {"sum": 1}, failed["good"]
    (log,) = [text for name, text in failed["logs"].items() if name.startswith("good-") and name.endswith("-base")]
    assert log == "10001\n"


@pytest.mark.parametrize(
    ("case", "kind", "said"),
    [
        ("wrong-input", "failed for good", "exit code 2"),
        ("outside", "tried again", "exit code 5"),
        ("memory", "tried again", "memory 100Mi; give it more"),
        ("no-image", "tried again", "its image localhost/modelmill-none:1 is not to be had"),
        ("no-gpu", "tried again", "Insufficient nvidia.com/gpu"),
        ("root", "tried again", "image will run as root"),
        ("no-secret", "tried again", "no secret with name"),
    ],
)
def test_a_pod_that_fails_is_told_in_one_message(failed: dict[str, Any], case: str, kind: str, said: str) -> None:
    assert failed[case]["kind"] == kind
    assert said in failed[case]["said"]
    assert failed[case]["said"].startswith(case)
    assert "\n" not in failed[case]["said"].strip()


def test_pods_that_never_started_are_not_left_to_start_later(failed: dict[str, Any]) -> None:
    assert failed["kept"] == ["good", "memory", "outside", "wrong-input"]
