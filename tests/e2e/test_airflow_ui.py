"""Airflow as people use it: its form, its pages, its logs; a task, and then all of Airflow, killed in the middle."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_server import AirflowServer, airflow_server
from browser import SCREENSHOTS, open_browser
from listener import listener
from modelmill.core import records, registry
from modelmill.core.local_store import LocalStore
from modelmill.core.store import Store
from modelmill.core.stores import open_store
from modelmill.deployment import Backend, Deployment, SecretEnv
from modelmill.runners import engine
from modelmill.runners.notice import NOTIFY_VARIABLE
from modelmill.runners.result import RunDocument, safe_name
from podman import ROOT
from seaweed import Seaweed, seaweed
from whole_line import make_recipe, reproducible_digests, run_in_this_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DAG = "small"
TRIGGER = "[...document.querySelectorAll('button')].find(b => b.textContent.includes('Trigger'))"


@dataclass(frozen=True)
class Place:
    """A running Airflow, the store that its DAG writes to, and the recipe."""

    airflow: AirflowServer
    store: Store
    server: Seaweed
    recipe: Path
    told: list[dict[str, Any]]
    """What came to the address that is told how a run ended."""

    def document(self, run: str) -> RunDocument:
        """What the store kept of a run."""
        record = records.read_run(self.store, safe_name(f"{DAG}-{run}"))
        assert record is not None
        return RunDocument.model_validate(record.document)

    def kill_container(self, task: str) -> None:
        """Kill a task's container as soon as there is one: what a machine short of memory does."""
        client = engine.client_library().from_env()
        # Other tests' runs have a retrain as well, and a store of their own.
        ours = f"AWS_ENDPOINT_URL={self.server.endpoint}"

        def killed() -> bool:
            listed = client.containers.list(filters={"label": f"modelmill.task={task}"}, ignore_removed=True)
            found = [container for container in listed if ours in container.attrs["Config"]["Env"]]
            for container in found:
                container.kill()
            return bool(found)

        self.airflow.wait(killed, f"container of {task}")
        client.close()


@pytest.fixture(scope="module")
def place(cpu_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The DAG file as it is committed, one recipe, containers on this machine, artifacts in S3."""
    folder = tmp_path_factory.mktemp("airflow-ui")
    (folder / "recipes").mkdir()
    recipe = make_recipe(folder)
    value = yaml.safe_load(recipe.read_text("utf-8"))
    value["model"]["source"], value["data"]["source"] = f"file:{folder / 'model'}", f"file:{folder / 'rows'}"
    recipe.write_text(yaml.safe_dump(value), "utf-8")
    shutil.copy(recipe, folder / "recipes" / "small.yaml")
    with seaweed(folder / "weed") as server, engine.engine() as address, pytest.MonkeyPatch.context() as patched:
        variables = server.environment(folder / "cache")
        for name, text in variables.items():
            patched.setenv(name, text)
        deployment = Deployment(
            store=f"s3://{server.bucket}/line",
            backend=Backend.DOCKER,
            images={"cpu": cpu_image},
            mounts=[str(folder / "model"), str(folder / "rows")],
            retries=5,
            retry_seconds=1,
            keep_pods="never",
            env={name: variables[name] for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_MAX_ATTEMPTS")},
            secrets=[
                SecretEnv(name=name, secret="s3", key=name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
            ],
        )
        path = folder / "deployment.yaml"
        path.write_text(yaml.safe_dump(deployment.model_dump(mode="json")), "utf-8")
        home = folder / "airflow"
        (home / "dags").mkdir(parents=True)
        shutil.copy(ROOT / "dags" / "modelmill_dag.py", home / "dags")
        settings = {
            "MODELMILL_RECIPES": str(folder / "recipes"),
            "MODELMILL_DEPLOYMENT": str(path),
            engine.ADDRESS_VARIABLE: address,
            "PYTHONPATH": str(ROOT / "components"),
        }
        with (
            listener() as (at, told),
            airflow_server(home, {**variables, **settings, NOTIFY_VARIABLE: at}) as airflow,
        ):
            airflow.wait(lambda: DAG in _dags(airflow), "DAG")
            airflow.ask("PATCH", f"/api/v2/dags/{DAG}", {"is_paused": False})
            yield Place(airflow, open_store(deployment.store), server, recipe, told)


def _dags(airflow: AirflowServer) -> list[str]:
    return [item["dag_id"] for item in airflow.ask("GET", "/api/v2/dags")["dags"]]


@pytest.fixture(scope="module")
def interrupted(place: Place) -> str:
    """A run whose training was killed, and in whose middle all of Airflow was killed and started again."""
    run = place.airflow.trigger(DAG, {"gate_max_drop_points": 4.5})
    place.kill_container("retrain")
    place.airflow.wait(lambda: place.airflow.state(DAG, run, "export.cpu-int8") == "running", "export")
    place.airflow.kill()
    time.sleep(1)
    place.airflow.start()
    assert place.airflow.ended(DAG, run) == "success"
    return run


def test_a_run_with_a_killed_task_and_a_killed_scheduler_ends_in_the_same_bytes(
    interrupted: str, place: Place, tmp_path: Path
) -> None:
    document = place.document(interrupted)
    local = run_in_this_process(place.recipe, LocalStore(tmp_path / "local"), "gate.max_drop_points=4.5")
    assert reproducible_digests(document) == reproducible_digests(local)
    assert document.bundle_digest == local.bundle_digest
    channel = registry.show_channel(place.store, "small", "staging")
    assert channel is not None
    assert channel.bundle == document.bundle_digest
    instances = place.airflow.ask("GET", f"/api/v2/dags/{DAG}/dagRuns/{interrupted}/taskInstances")["task_instances"]
    attempts = {item["task_id"]: item["try_number"] for item in instances}
    assert attempts["retrain"] >= 2
    assert {item["state"] for item in instances} == {"success"}


def test_logs_and_pointers_are_read_over_the_api(interrupted: str, place: Place) -> None:
    assert "promoted; report s3://" in place.airflow.log(DAG, interrupted, "finish")
    path = f"/api/v2/dags/{DAG}/dagRuns/{interrupted}/taskInstances/gate.cpu-int8/xcomEntries/return_value"
    pointer = place.airflow.ask("GET", path)["value"]
    assert pointer in {row.key for row in place.document(interrupted).steps}


def test_a_bad_parameter_is_refused_with_a_message_and_a_structural_one_by_name(place: Place) -> None:
    with pytest.raises(RuntimeError, match=r"^4\d\d: .*retrain_epochs|^4\d\d: .*minimum"):
        place.airflow.trigger(DAG, {"retrain_epochs": 0})
    run = place.airflow.trigger(DAG, {"targets": []})
    assert place.airflow.ended(DAG, run) == "failed"
    assert "structural" in place.airflow.log(DAG, run, "begin")
    # No container ran, so that Airflow alone can tell.
    place.airflow.wait(lambda: any(item["run"] == safe_name(f"{DAG}-{run}") for item in place.told), "word of the end")
    assert {item["status"] for item in place.told} == {"failed"}


def test_the_pages_show_the_run_and_the_form(interrupted: str, place: Place, tmp_path: Path) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with open_browser(tmp_path / "profile") as page:
        for name, path, texts in (
            ("airflow-grid", f"/dags/{DAG}/runs/{interrupted}", ("retrain", "publish")),
            ("airflow-form", f"/dags/{DAG}?trigger", ()),
        ):
            page.driver.set_window_size(1500, 1100)
            page.driver.get(place.airflow.address + path)
            place.airflow.wait(
                lambda wanted=texts: all(text in page.driver.page_source for text in (DAG, *wanted)), f"page {name}", 60
            )
            if name == "airflow-form":
                place.airflow.wait(lambda: page.run(f"return Boolean({TRIGGER})"), "button", 60)
                page.run(f"{TRIGGER}.click()")
                place.airflow.wait(lambda: "retrain.epochs" in page.driver.page_source, "form", 60)
            time.sleep(1)
            page.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))
            assert (SCREENSHOTS / f"{name}.png").stat().st_size > 20_000


def test_the_secret_is_in_nothing_that_airflow_keeps(interrupted: str, place: Place) -> None:
    secret = place.server.secret_key.encode()
    searched = [path for path in place.airflow.home.rglob("*") if path.is_file()]
    assert any(path.name == "airflow.db" for path in searched)
    assert [path for path in searched if secret in path.read_bytes()] == []
    kept = [place.store.read(name) for name in ("runs/" + safe_name(f"{DAG}-{interrupted}") + ".html",)]
    assert all(document is not None and secret not in document.content for document in kept)
