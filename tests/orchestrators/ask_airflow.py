"""Questions to the DAG of a DAG file, answered in Airflow's environment; the answers are printed as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.serialization.serialized_objects import DagSerialization
from ask_pods import Told, pods_of

from modelmill import recipe as recipes
from modelmill.core.errors import UsageError
from modelmill.deployment import Backend, Deployment
from modelmill.runners.airflow import dag_of
from modelmill.runners.airflow_folder import SCHEDULE_VARIABLE, dags_of, dags_of_environment
from normal_form import dags_in

SCHEDULES = (
    *("every day", "@nightly", "99 * * * *", "0 0 31 2 *"),
    *("", "  ", "0 2 * * *", "@daily", "@quarterly", "@continuous", "@midnight"),
)
MOUNTS = ("/m {{ ds }}/{{$}} {% raw", "/templates/run.sh")


def refusals(dag: Any) -> dict[str, str]:
    """What a start with fields that the form does not offer is told, by field."""
    found = {}
    for name in ("retrain_epochs", "targets", "retrain_epoch"):
        context = {"dag_run": SimpleNamespace(conf={name: 1})}
        try:
            dag.get_task("begin")._pre_execute_hook(context)
            found[name] = ""
        except AirflowFailException as problem:
            found[name] = str(problem)
    return found


def promotions(dag: Any) -> dict[str, str]:
    """What becomes of publish, by verdict."""
    found = {}
    for verdict in ("pass", "fail", "inconclusive"):
        try:
            dag.get_task("publish")._pre_execute_hook({"ti": Told({"decide": verdict})})
            found[verdict] = "runs"
        except AirflowSkipException:
            found[verdict] = "skipped"
    return found


def refused_values(dag: Any) -> dict[str, str]:
    """What the form says to values, by field."""
    found = {}
    for name, value in (
        ("retrain_epochs", 0),
        ("gate_confidence", "sure"),
        ("retrain_precision", "int3"),
        ("retrain_seed", 3),
    ):
        param = dag.params.get_param(name)
        try:
            param.resolve(value)
            found[name] = ""
        except Exception as problem:
            found[name] = str(problem)[:500]
    return found


def folder_of(path: Path) -> dict[str, Any]:
    """What a folder of recipes becomes: its DAGs' assets by name and URI, their groups, and what is wrong."""
    dags = dags_of(path, Path(os.environ["MODELMILL_DEPLOYMENT"]))
    good = {name: dag for name, dag in dags.items() if "wrong" not in dag.tags}
    return {
        "good": {name: [(at.name, at.uri) for at in dag.get_task("publish").outlets] for name, dag in good.items()},
        "groups": {name: sorted(dag.task_group.get_task_group_dict(), key=str) for name, dag in good.items()},
        "wrong": {name: dag.doc_md for name, dag in dags.items() if name not in good},
        "serialized": [DagSerialization.to_dict(dag)["dag"]["dag_id"] for dag in dags.values()],
    }


def refused_folder(path: str) -> str:
    """What is said of a folder that is none."""
    try:
        dags_of_environment({"MODELMILL_RECIPES": path}, Path())
    except UsageError as problem:
        return str(problem)
    return ""


def schedules() -> dict[str, dict[str, Any]]:
    """The schedule of each DAG, or what the DAG says is wrong with it, by what the variable says."""
    found = {}
    for text in SCHEDULES:
        dags = dags_of_environment({**os.environ, SCHEDULE_VARIABLE: text}, Path())
        found[text] = {
            name: dag.doc_md if name.startswith(SCHEDULE_VARIABLE) else dag.schedule for name, dag in dags.items()
        }
    return found


def mounted(recipe: Path, mount: str) -> dict[str, Any]:
    """What fetch's container on the machine of its worker is given of a folder, its templates filled in."""
    deployment = Deployment(store="s3://models/line", backend=Backend.DOCKER, mounts=[mount])
    dag = dag_of(recipes.load(recipe), deployment)
    task = dag.get_task("fetch")
    task.render_template_fields({"dag": dag, "run_id": "run", "ti": Told({"begin": "sha256:0"}), "params": {}})
    return {"mounts": [item["Source"] for item in task.mounts], "command": task.command}


def main(dag_file: Path, others: Path) -> None:
    """Load the DAG file as Airflow does, and answer."""
    started = time.monotonic()
    dags = dags_in(dag_file)
    parsed = time.monotonic() - started
    dag = dags["demo"]
    answers = {
        "seconds": parsed,
        "heavy": sorted({"torch", "transformers", "onnxruntime", "datasets", "kfp"} & set(sys.modules)),
        "dags": sorted(dags),
        "wrong": {name: item.doc_md for name, item in dags.items() if "wrong" in item.tags},
        "groups": sorted(dag.task_group.get_task_group_dict(), key=str),
        "outlets": [item.uri for item in dag.get_task("publish").outlets],
        "refusals": refusals(dag),
        "promotions": promotions(dag),
        "values": refused_values(dag),
        "pods": pods_of(dag, {}, "manual__2026-11-22T07:00:00+00:00", {"publish_model": "{{ 6 * 7 }}"}),
        "folders": {others.name: folder_of(others), "/nope": refused_folder("/nope")},
        "schedules": schedules(),
        "mounted": {mount: mounted(others / "one.yaml", mount) for mount in MOUNTS},
        "operators": all(isinstance(task, KubernetesPodOperator) for task in dag.tasks),
    }
    sys.stdout.write(json.dumps(answers, default=str))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
