"""Run single pods on the cluster that KUBECONFIG names, as a worker and a triggerer would; print how each ended.

``python fail_in_airflow.py CASES.json``: a case is the arguments of `StepPodOperator`, by the case's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from kubernetes.client import models as k8s

from modelmill.runners.airflow_pod import StepPodOperator


class Instance:
    """A task instance: what the provider asks of it."""

    dag_id, map_index, try_number = "cases", -1, 1

    def __init__(self, task_id: str) -> None:
        self.task_id, self.start_date = task_id, datetime.now(UTC)

    def xcom_push(self, key: str, value: Any) -> None:
        """Take what is told on the way."""


async def _first(trigger: Any) -> dict[str, Any]:
    async for event in trigger.run():
        payload: dict[str, Any] = event.payload
        return payload
    raise AssertionError(trigger)


def ended(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Run one pod to its end."""
    started = time.monotonic()
    resources = k8s.V1ResourceRequirements(requests=given["limits"], limits=given["limits"])
    task = StepPodOperator(
        task_id=name,
        name=name,
        namespace="cases",
        image=given["image"],
        cmds=given["cmds"],
        image_pull_policy=given.get("pull_policy", "IfNotPresent"),
        node_selector=given.get("node_selector", {}),
        container_resources=resources,
        schedule_timeout_seconds=2,
        startup_timeout_seconds=2,
        startup_check_interval_seconds=1,
        poll_interval=0.5,
        execution_timeout=timedelta(minutes=5),
        on_finish_action=given.get("on_finish_action", "delete_pod"),
        deferrable=True,
        do_xcom_push=True,
        durable=False,
    )
    context = {"ti": Instance(name), "run_id": "run", "dag": None}
    told, said, kind = None, "", ""
    try:
        try:
            task.execute(context)
        except TaskDeferred as deferred:
            told = task.trigger_reentry(context, asyncio.run(_first(deferred.trigger)))
    except AirflowFailException as problem:
        said, kind = str(problem), "failed for good"
    except AirflowException as problem:
        said, kind = str(problem), "tried again"
    return {"told": told, "kind": kind, "said": said, "seconds": round(time.monotonic() - started, 1)}


def main(cases: Path) -> None:
    """Run all cases, one after the other."""
    with contextlib.redirect_stdout(sys.stderr):
        found = {name: ended(name, given) for name, given in json.loads(cases.read_text("utf-8")).items()}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
