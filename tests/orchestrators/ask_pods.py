"""The pods of recipes' DAGs, rendered, and what pods' statuses mean; in Airflow's environment, printed as JSON.

``python ask_pods.py QUESTIONS.json``: ``dags`` holds by name a recipe's and a deployment's file, and what earlier tasks
told (``told``; a task that is not named is ``sha256:`` and its name); ``statuses`` holds pods by name.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kubernetes.client import ApiClient

from modelmill import deployment as deployments
from modelmill import recipe as recipes
from modelmill.runners.airflow import dag_of
from modelmill.runners.airflow_pod import failure


class Told:
    """A task instance whose upstream tasks said what a mapping holds."""

    def __init__(self, pointers: Mapping[str, str]) -> None:
        self._pointers = pointers

    def xcom_pull(self, task_ids: str) -> str:
        """What a task told."""
        return self._pointers[task_ids]


def pods_of(dag: Any, told: Mapping[str, str], run: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Each task's pod as it is sent to Kubernetes: its templates filled from a run's name, parameters and pointers."""
    pointers = {task.task_id: told.get(task.task_id, f"sha256:{task.task_id}") for task in dag.tasks}
    params = {**{name: dag.params[name] for name in dag.params}, **given}
    context = {"dag": dag, "run_id": run, "ti": Told(pointers), "params": params}
    found = {}
    for task in dag.tasks:
        task.render_template_fields(context)
        # What `execute` does first.
        task.name = task._set_name(task.name)
        found[task.task_id] = ApiClient().sanitize_for_serialization(task.build_pod_request_obj(None))
    return found


def main(questions: Mapping[str, Any]) -> None:
    """Answer."""
    client = ApiClient()
    with contextlib.redirect_stdout(sys.stderr):
        pods = {
            name: pods_of(
                dag_of(recipes.load(Path(item["recipe"])), deployments.load(Path(item["deployment"]))),
                item.get("told", {}),
                "manual__2026-11-22T07:00:00+00:00",
                item.get("given", {}),
            )
            for name, item in questions["dags"].items()
        }
        failures = {
            name: failure(client.deserialize(SimpleNamespace(data=json.dumps(pod)), "V1Pod"), "base")._asdict()
            for name, pod in questions["statuses"].items()
        }
    sys.stdout.write(json.dumps({"pods": pods, "failures": failures}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
