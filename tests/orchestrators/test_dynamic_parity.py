"""One recipe by the local runner, by kfp's own code and by Airflow's own code: the same line, the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from environments import airflow_python
from modelmill import recipe as recipes
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners.containers import describe
from modelmill.runners.result import RunDocument
from podman import Podman
from seaweed import Seaweed, seaweed
from whole_line import make_recipe, reproducible_digests

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
RUNNERS = ("local", "kubeflow-local", "airflow-local")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def document(self) -> RunDocument:
        assert self.stdout, self.stderr[-3000:]
        return RunDocument.model_validate(json.loads(self.stdout))


@dataclass(frozen=True)
class Place:
    """A recipe, a deployment with this source's image, and an S3 server."""

    folder: Path
    server: Seaweed

    def run(self, runner: str, prefix: str, *arguments: str | Path, **variables: str) -> Ended:
        """``modelmill run`` as a user types it, to its end."""
        started = time.monotonic()
        process = self.start(runner, prefix, *arguments, **variables)
        stdout, stderr = process.communicate()
        return Ended(process.returncode, stdout, stderr, time.monotonic() - started)

    def start(self, runner: str, prefix: str, *arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
        """The same, started."""
        store = f"s3://{self.server.bucket}/{prefix}"
        command = [sys.executable, "-m", "modelmill.cli.main", "run", self.folder / "recipe.yaml", "--runner", runner]
        options = ["--store", store, "--deployment", self.folder / "deployment.yaml", "--json", *arguments]
        environment = {
            **os.environ,
            **self.server.environment(self.folder / "cache"),
            "MODELMILL_AIRFLOW_PYTHON": str(airflow_python()),
            **variables,
        }
        pipe = subprocess.PIPE
        return subprocess.Popen([*command, *options], env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def place(cpu_image: str, light_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A recipe of one lane in a folder of its own, sources relative to it."""
    folder = tmp_path_factory.mktemp("dynamic")
    make_recipe(folder)
    deployment = Deployment(images={"cpu": cpu_image, "light": light_image})
    (folder / "deployment.yaml").write_text(yaml.safe_dump(deployment.model_dump(mode="json")), "utf-8")
    with seaweed(folder / "weed") as server:
        yield Place(folder, server)


@pytest.fixture(scope="module")
def first(place: Place) -> dict[str, Ended]:
    """The recipe run by each runner, on an empty prefix each."""
    found = {runner: place.run(runner, runner) for runner in RUNNERS}
    for ended in found.values():
        assert ended.code == 0, ended.stderr[-4000:]
    return found


@pytest.fixture(scope="module")
def fresh(first: dict[str, Ended]) -> dict[str, RunDocument]:
    """What each runner found."""
    return {runner: ended.document for runner, ended in first.items()}


def test_three_runners_on_empty_stores_end_in_the_same_bytes(fresh: dict[str, RunDocument]) -> None:
    for document in fresh.values():
        assert not any(row.cached for row in document.steps)
        assert document.status.value == "promoted"
    local, *others = (reproducible_digests(document) for document in fresh.values())
    assert len(local) >= 7
    assert others == [local, local]
    assert len({document.bundle_digest for document in fresh.values()}) == 1


@pytest.mark.parametrize(("runner", "after"), [("kubeflow-local", "local"), ("airflow-local", "kubeflow-local")])
def test_what_one_runner_did_the_next_one_finds(
    runner: str, after: str, fresh: dict[str, RunDocument], place: Place
) -> None:
    ended = place.run(runner, after)
    assert ended.code == 0, ended.stderr[-4000:]
    assert all(row.cached for row in ended.document.steps)
    assert [row.key for row in sorted(ended.document.steps, key=lambda row: row.task)] == [
        row.key for row in sorted(fresh[after].steps, key=lambda row: row.task)
    ]


@pytest.mark.parametrize("runner", ["kubeflow-local", "airflow-local"])
def test_a_refusal_ends_with_3_and_a_wrong_source_with_2(
    runner: str, fresh: dict[str, RunDocument], place: Place
) -> None:
    refused = place.run(runner, "local", "--set", "gate.min_speedup=100000")
    assert refused.code == 3, refused.stderr[-4000:]
    assert refused.document.bundle is None
    wrong = place.run(runner, "local", "--set", "data.train=training")
    assert wrong.code == 2, wrong.stderr[-4000:]
    assert "training" in wrong.stderr.strip().splitlines()[-3]
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize("runner", ["kubeflow-local", "airflow-local"])
def test_an_image_that_is_not_there_and_wrong_credentials_are_said(runner: str, place: Place) -> None:
    (place.folder / "missing.yaml").write_text("images: {cpu: 'localhost/no-such-image:1'}", "utf-8")
    ended = place.run(runner, "missing", "--deployment", place.folder / "missing.yaml")
    assert ended.code == 2
    assert "no-such-image" in ended.stderr
    denied = place.run(runner, "denied", AWS_SECRET_ACCESS_KEY="not-the-secret")
    assert denied.code == 5
    assert "Traceback" not in denied.stderr
    assert "not-the-secret" not in denied.stderr


@pytest.mark.parametrize("runner", ["kubeflow-local", "airflow-local"])
def test_sigterm_in_training_leaves_no_container_and_a_run_that_says_interrupted(
    runner: str, place: Place, podman: Podman
) -> None:
    prefix = f"stopped-{runner}"
    process = place.start(runner, prefix, "--set", "retrain.epochs=500")
    assert process.stderr is not None
    # The loop of the training says it, from inside of the container.
    told = next((line for line in process.stderr if "epoch 1 of 500" in line), "")
    assert told
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    labelled = podman("ps", "--all", "--filter", "label=modelmill.owner", "--format", "{{.Labels}}")
    assert str(place.folder / "cache") not in labelled.stdout
    listing = [sys.executable, "-m", "modelmill.cli.main", "runs", "list", "--json"]
    store = f"s3://{place.server.bucket}/{prefix}"
    listed = subprocess.run(
        [*listing, "--store", store],
        env={**os.environ, **place.server.environment(place.folder / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"interrupted"' in listed.stdout


def test_no_secret_is_in_what_the_runners_print(first: dict[str, Ended], place: Place) -> None:
    for ended in first.values():
        assert place.server.secret_key not in ended.stdout + ended.stderr


@pytest.mark.figures
def test_an_orchestrator_adds_three_seconds_a_step_to_hits_and_ten_to_work(
    first: dict[str, Ended], place: Place
) -> None:
    described = describe(Job(recipes.load(place.folder / "recipe.yaml"), Deployment(store="s3://models/line")))
    steps = len(described.containers)
    hits = {runner: place.run(runner, "local") for runner in RUNNERS}
    for runner in RUNNERS[1:]:
        hit, work = (
            (found[runner].document.seconds - found["local"].document.seconds) / steps for found in (hits, first)
        )
        whole = hits[runner].seconds - hits["local"].seconds
        told = f"{hit:.2f} s a step where all is in the store, {work:.2f} s where nothing is; {whole:.0f} s for"
        sys.stdout.write(f"\n{runner}: {told} {steps} hits with the orchestrator's own start")
        assert hit <= 3
        assert work <= 10
