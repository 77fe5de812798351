"""Questions to the DAG of a DAG file, answered in Airflow's environment; the answers are printed as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from kubernetes.client import ApiClient
from kubernetes.client import models as k8s

from normal_form import dags_in


class Told:
    """A task instance whose upstream tasks said what a mapping holds."""

    def __init__(self, pointers: dict[str, str]) -> None:
        self._pointers = pointers
        self.map_index = -1

    def xcom_pull(self, task_ids: str) -> str:
        return self._pointers[task_ids]


def pods(dag: Any) -> dict[str, Any]:
    """Each task's pod, rendered as for a run whose every pointer is ``sha256:`` and the task's name."""
    pointers = {task.task_id: f"sha256:{task.task_id}" for task in dag.tasks}
    context = {
        "dag": dag,
        "run_id": "manual__2026-11-22T07:00:00+00:00",
        "ti": Told(pointers),
        "params": {**{name: dag.params[name] for name in dag.params}, "publish_model": "{{ 6 * 7 }}"},
    }
    found = {}
    for task in dag.tasks:
        task.render_template_fields(context)
        found[task.task_id] = ApiClient().sanitize_for_serialization(task.build_pod_request_obj(None))
    return found


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


def retries(dag: Any) -> dict[str, str]:
    """What becomes of a task, by its container's exit code."""
    task = dag.get_task("retrain")
    task.on_finish_action, task.process_pod_deletion = "keep_pod", lambda *_, **__: None
    task.patch_already_checked = task._read_pod_container_states = task._read_pod_events = lambda *_, **__: None
    task._push_xcom_with_fan_out = lambda *_, **__: None
    task.is_istio_enabled = lambda _: False
    found = {}
    for code in (1, 2, 5, 137, None):
        state = k8s.V1ContainerState(terminated=k8s.V1ContainerStateTerminated(exit_code=code) if code else None)
        status = k8s.V1ContainerStatus(name="base", state=state, image="x", image_id="x", ready=False, restart_count=0)
        pod = k8s.V1Pod(
            metadata=k8s.V1ObjectMeta(name="pod", labels={}, annotations={}),
            spec=k8s.V1PodSpec(containers=[]),
            status=k8s.V1PodStatus(phase="Failed", container_statuses=[status]),
        )
        try:
            task.cleanup(pod, pod)
            found[str(code)] = "ended well"
        except AirflowFailException:
            found[str(code)] = "failed for good"
        except AirflowException:
            found[str(code)] = "tried again"
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


def main(dag_file: Path) -> None:
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
        "retries": retries(dag),
        "values": refused_values(dag),
        "pods": pods(dag),
        "operators": all(isinstance(task, KubernetesPodOperator) for task in dag.tasks),
    }
    sys.stdout.write(json.dumps(answers, default=str))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
