"""Questions to DAGs of somebody's own with our steps in them, answered in Airflow's environment as JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, TaskGroup, task
from airflow.serialization.serialized_objects import DagSerialization
from kubernetes.client import ApiClient

from modelmill import deployment as deployments
from modelmill.airflow import step
from modelmill.core.errors import ModelmillError
from normal_form import dags_in

DEPLOYMENT = deployments.load(Path(os.environ["MODELMILL_DEPLOYMENT"]))
DIGEST = f"sha256:{'0' * 64}"
TASK = {"task": "text-classification"}
ONNX = {**TASK, "runtime": "onnxruntime"}


class Told:
    """A task instance whose upstream tasks said what a mapping holds."""

    map_index = -1

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = said

    def xcom_pull(self, task_ids: str, dag_id: str, key: str) -> Any:
        found = self._said[task_ids]
        return found if key == "return_value" else found[key]


def pod(dag: Any, task_id: str, said: dict[str, Any]) -> dict[str, Any]:
    """A task's pod, rendered as for a run in which others said that."""
    operator = dag.get_task(task_id)
    context = {"dag": dag, "run_id": "manual", "ti": Told(said), "task_instance": Told(said), "params": {}}
    operator.render_template_fields(context)
    found: dict[str, Any] = ApiClient().sanitize_for_serialization(operator.build_pod_request_obj(None))
    return found


@task
def mine() -> str:
    return DIGEST


def refusal(make: Callable[[], object]) -> str:
    """What is said to a wrong step as the DAG file is parsed."""
    with DAG("wrong", schedule=None):
        try:
            make()
        except ModelmillError as problem:
            return str(problem)
    return ""


def refusals() -> dict[str, str]:
    """By what is wrong."""

    def made(name: str, inputs: dict[str, Any], settings: dict[str, Any] = TASK, **more: Any) -> Callable[[], object]:
        return lambda: step(name, inputs=inputs, settings=settings, deployment=DEPLOYMENT, **more)

    def fed(name: str, port: str, other: str, **inputs: Any) -> object:
        source = step(other, inputs=inputs, settings=ONNX if other == "optimize" else TASK, deployment=DEPLOYMENT)
        value = source.output[port] if port else source
        return step(name, inputs={"checkpoint": value}, settings=TASK, deployment=DEPLOYMENT, task_id="second")

    lanes = {"models": DIGEST, "choices": {"a": DIGEST}, "verdicts": {"a": DIGEST}}
    return {
        "step": refusal(made("exprot", {})),
        "missing input": refusal(made("export", {})),
        "unknown input": refusal(made("export", {"checkpoint": DIGEST, "chekpoint": DIGEST})),
        "setting": refusal(made("export", {"checkpoint": DIGEST}, {**TASK, "opste": 20})),
        "value": refusal(made("export", {"checkpoint": DIGEST}, {**TASK, "opset": 3})),
        "template": refusal(made("export", {"checkpoint": "{{ var.value.model }}"})),
        "operator": refusal(made("export", {"checkpoint": 3})),
        "type": refusal(lambda: fed("export", "", "optimize", model=DIGEST)),
        "port": refusal(lambda: fed("export", "modle", "optimize", model=DIGEST)),
        "lanes": refusal(made("publish", lanes, {"model": "m", "channel": "c"})),
        "task": refusal(made("export", {"checkpoint": DIGEST}, task_id="finish")),
        "task's name": refusal(made("export", {"checkpoint": DIGEST}, task_id="a b {{ x }}")),
        "runtime": refusal(made("optimize", {"model": DIGEST}, {**ONNX, "runtime": "onnxruntime-rocm"})),
        "ML task": refusal(made("export", {"checkpoint": DIGEST}, {"task": "text-clasification"})),
        "device": refusal(made("export", {"checkpoint": DIGEST}, device="tpu")),
        "right": refusal(made("export", {"checkpoint": DIGEST})),
    }


def chained() -> Any:
    """Steps that feed each other, in a group whose tasks have its name before theirs."""
    with DAG("chained", schedule=None) as dag, TaskGroup("small"):
        exported = step("export", inputs={"checkpoint": mine()}, settings=TASK, deployment=DEPLOYMENT)
        optimized = step(
            "optimize", task_id="fuse_It", inputs={"model": exported}, settings=ONNX, deployment=DEPLOYMENT
        )
        step(
            "publish",
            inputs={
                "models": {"cpu": optimized.output["model"]},
                "choices": {"cpu": DIGEST},
                "verdicts": {"cpu": f"s3://models/line/artifacts/{'1' * 64}"},
            },
            settings={"model": "{{ 6 * 7 }}", "channel": "staging"},
            deployment=DEPLOYMENT,
        )
    return dag


def steps(dag_file: Path) -> dict[str, Any]:
    """What steps in a DAG are, what is refused, and who waits for whom in a DAG file with a whole line."""
    (line,) = dags_in(dag_file).values()
    dag = chained()
    said = {"small.mine": DIGEST, "small.export": {"model": "sha256:e"}, "small.fuse_It": {"model": "sha256:f"}}
    return {
        "refusals": refusals(),
        "heavy": sorted({"torch", "transformers", "onnxruntime", "datasets", "kfp"} & set(sys.modules)),
        "upstream": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
        "pods": {task.task_id: pod(dag, task.task_id, said) for task in dag.tasks if task.task_id != "small.mine"},
        "line": {task.task_id: sorted(task.upstream_task_ids) for task in line.tasks},
        "serialized": len(DagSerialization.to_dict(dag)["dag"]["tasks"]),
    }


def until_step(dag: Any) -> dict[str, Any]:
    """Run the tasks before the step `evaluate` for real; its pod, and who waits for whom."""
    evaluate = dag.get_task("evaluate")
    said = {name: dag.get_task(name).python_callable() for name in evaluate.upstream_task_ids}
    upstream = {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks}
    return {"upstream": upstream, "pod": pod(dag, "evaluate", said)}


def main(mode: str, dag_file: Path, said: dict[str, Any]) -> None:
    """Answer: what ``steps`` are, what runs in a DAG file ``until-step``, or what a task of it returns."""
    answer: Any
    if mode == "steps":
        answer = steps(dag_file)
    else:
        (dag,) = dags_in(dag_file).values()
        answer = until_step(dag) if mode == "until-step" else dag.get_task(mode).python_callable(**said)
    sys.stdout.write(json.dumps(answer, default=str))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
