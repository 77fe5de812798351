"""What a task is, in words that belong to no orchestrator: the form in which bindings are compared.

Run as a script in an orchestrator's own environment, it prints the tasks of a binding as JSON:
``python normal_form.py line|kubeflow|airflow RECIPE DEPLOYMENT FILE`` reads the declaration, a compiled pipeline at
FILE, or the DAG in the DAG file FILE.
"""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

RUN, FILE, PLACE = "<run>", "<file>", "<place>"
SHOWN = {"system.Metrics": "metrics", "system.ClassificationMetrics": "confusion", "system.HTML": "report"}


def of_line(recipe: Path, deployment: Path) -> dict[str, Any]:
    """The declaration itself."""
    from modelmill import deployment as deployments
    from modelmill import recipe as recipes
    from modelmill.line import Job
    from modelmill.runners.containers import (
        WRITABLE,
        Given,
        Part,
        Pointer,
        PointerFile,
        RunName,
        ShowPlace,
        describe,
    )

    described = describe(Job(recipes.load(recipe), deployments.load(deployment)))

    def text(part: Part) -> str:
        match part:
            case Given(parameter):
                return f"<parameter {parameter}>"
            case Pointer(task):
                return f"<pointer {task}>"
            case RunName():
                return RUN
            case PointerFile():
                return FILE
            case ShowPlace():
                return PLACE
            case _:
                return part

    tasks = {}
    for item in described.containers:
        tasks[item.id] = {
            "image": item.image,
            "pull_policy": item.pull_policy,
            "labels": dict(item.labels),
            "arguments": ["".join(text(part) for part in argument) for argument in item.arguments],
            "env": dict(item.env),
            "secrets": sorted([one.name, one.secret, one.key] for one in item.secrets),
            "shows": [kind.value for kind in item.shows],
            "after": sorted(item.after),
            "if_promoted": item.only_if_promoted,
            "always": item.always,
            "cpu": item.resources.cpu,
            "memory": item.resources.memory,
            "accelerator": [item.pool.accelerator, item.accelerators] if item.pool.accelerator else None,
            "node_selector": dict(item.pool.node_selector),
            "tolerations": [one.model_dump(exclude_none=True) for one in item.pool.tolerations],
            "retries": 0 if item.always else item.retries,
            "retry_seconds": item.retry_seconds if item.retries and not item.always else None,
            "timeout_minutes": item.timeout_minutes,
            "non_root": True,
            "writable": sorted([name, path] for name, path in WRITABLE.items()),
        }
    parameters = {item.name: [item.type, item.default] for item in described.parameters}
    return {"name": described.name, "parameters": parameters, "tasks": tasks}


def of_kubeflow(package: Path) -> dict[str, Any]:
    """A compiled pipeline."""
    return of_documents(list(yaml.safe_load_all(package.read_text("utf-8"))))


def of_documents(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The documents of a compiled pipeline."""
    spec = documents[0]
    platform = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if documents[1:] else {}
    executors = spec["deploymentSpec"]["executors"]
    tasks: dict[str, Any] = {}
    _walk_kubeflow(spec, spec["root"], {}, tasks, executors, platform, promoted=False)
    kinds = {"STRING": "string", "NUMBER_INTEGER": "integer", "NUMBER_DOUBLE": "number", "BOOLEAN": "boolean"}
    parameters = {
        name: [kinds[item["parameterType"]], item["defaultValue"]]
        for name, item in spec["root"].get("inputDefinitions", {}).get("parameters", {}).items()
    }
    for name, (kind, value) in parameters.items():
        parameters[name] = [kind, int(value) if kind == "integer" else value]
    return {"name": spec["pipelineInfo"]["name"], "parameters": parameters, "tasks": tasks}


def _walk_kubeflow(
    spec: dict[str, Any],
    component: dict[str, Any],
    outer: dict[str, str],
    tasks: dict[str, Any],
    executors: dict[str, Any],
    platform: dict[str, Any],
    *,
    promoted: bool,
) -> None:
    """Collect the tasks of a component and of those inside it; ``outer`` says what its inputs are."""
    for task in component["dag"]["tasks"].values():
        inner = spec["components"][task["componentRef"]["name"]]
        given: dict[str, str] = {}
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            if "taskOutputParameter" in source:
                made_by = source["taskOutputParameter"]["producerTask"]
                given[key] = f"<pointer {component['dag']['tasks'][made_by]['taskInfo']['name']}>"
            elif "componentInputParameter" in source:
                outside = source["componentInputParameter"]
                given[key] = outer.get(outside, f"<parameter {outside}>")
            else:
                # Of a constant the backend fills in what is one placeholder as a whole (driver/resolve.go).
                constant = str(source["runtimeValue"]["constant"])
                given[key] = RUN if constant == "{{$.pipeline_job_uuid}}" else constant
        if "dag" in inner:
            condition = task.get("triggerPolicy", {}).get("condition")
            if condition is not None:
                reads = re.findall(r"inputs\.parameter_values\['([^']+)'\]", condition)
                assert [given[item] for item in reads] == ["<pointer decide>"], condition
                assert condition.endswith("== 'pass'"), condition
            _walk_kubeflow(spec, inner, given, tasks, executors, platform, promoted=promoted or condition is not None)
            continue
        container = executors[inner["executorLabel"]]["container"]
        placed = platform.get(inner["executorLabel"], {})
        label = task["taskInfo"]["name"]
        arguments = [_kubeflow_text(item, given) for item in [*container["command"], *container.get("args", [])]]
        pointed = re.findall(r"<pointer ([^>]+)>", " ".join(arguments))
        resources = container["resources"]
        accelerator = resources.get("accelerator")
        retry = task.get("retryPolicy", {})
        assert task["cachingOptions"] == {} or not task["cachingOptions"].get("enableCache")
        assert resources["resourceCpuRequest"] == resources["resourceCpuLimit"]
        assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"]
        tasks[label] = {
            "image": container["image"],
            "pull_policy": placed["imagePullPolicy"],
            "labels": placed.get("podMetadata", {}).get("labels", {}),
            "arguments": arguments,
            "env": {item["name"]: item["value"] for item in container.get("env", [])},
            "secrets": sorted(
                [env["envVar"], secret["secretName"], env["secretKey"]]
                for secret in placed.get("secretAsEnv", [])
                for env in secret["keyToEnv"]
            ),
            "shows": _shown(inner, arguments),
            "after": sorted({*pointed, *(["decide"] if promoted else [])}),
            "if_promoted": promoted,
            "always": task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED",
            "cpu": resources["resourceCpuLimit"],
            "memory": resources["resourceMemoryLimit"],
            "accelerator": ([accelerator["resourceType"], int(accelerator["resourceCount"])] if accelerator else None),
            "node_selector": placed.get("nodeSelector", {}).get("labels", {}),
            "tolerations": placed.get("tolerations", []),
            "retries": int(retry.get("maxRetryCount", 0)),
            "retry_seconds": int(float(retry["backoffDuration"].rstrip("s"))) if retry else None,
            "timeout_minutes": int(placed["activeDeadlineSeconds"]) // 60,
            "non_root": placed.get("securityContext", {}).get("runAsNonRoot", False),
            "writable": sorted([one["volumeName"], one["mountPath"]] for one in placed.get("emptyDirMounts", [])),
        }


def _said_to_show(arguments: list[str]) -> list[str]:
    return [item for before, item in pairwise(arguments) if before == "--show"]


def _shown(component: dict[str, Any], arguments: list[str]) -> list[str]:
    """What a component's output artifacts show, in the order of its arguments; each by its name and its type."""
    artifacts = component["outputDefinitions"].get("artifacts", {})
    found = {name: SHOWN.get(item["artifactType"]["schemaTitle"]) for name, item in artifacts.items()}
    said = _said_to_show(arguments)
    return [name for name in said if found.get(name) == name] + sorted(found.keys() - set(said))


def _kubeflow_text(item: str, given: dict[str, str]) -> str:
    """A text of a command, its placeholders filled in as the backend does (component/launcher_v2.go) and no others."""
    text = PLACE if item == "{{$}}" else item
    text = text.replace("{{$.outputs.parameters['Output'].output_file}}", FILE)
    return re.sub(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}", lambda found: given[found[1]], text)


def dags_in(dag_file: Path) -> dict[str, Any]:
    """The DAGs that a DAG file holds when it is loaded, as Airflow does, by name."""
    import importlib.util

    from airflow.sdk import DAG

    spec = importlib.util.spec_from_file_location("dag_file", dag_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: item for name, item in vars(module).items() if isinstance(item, DAG)}


def of_airflow(dag_file: Path) -> dict[str, Any]:
    """The one DAG of a DAG file."""
    (dag,) = dags_in(dag_file).values()
    return of_dag(dag)


def of_dag(dag: Any) -> dict[str, Any]:
    """A DAG."""
    from modelmill.runners import airflow as binding

    tasks = {}
    for task in dag.tasks:
        resources = task.container_resources
        assert resources.requests == resources.limits
        extended = {name: value for name, value in resources.limits.items() if name not in {"cpu", "memory"}}
        always = str(getattr(task.trigger_rule, "value", task.trigger_rule)) == "all_done"
        env = {name: _airflow_text(value) for name, value in task.env_vars.items()}
        arguments = [_airflow_text(item) for item in [*task.cmds, *task.arguments]]
        arguments = [
            PLACE if (before, item) == ("--show-in", "log") else item for before, item in pairwise(["", *arguments])
        ]
        tasks[task.task_id] = {
            "image": task.image,
            "pull_policy": task.image_pull_policy,
            "labels": dict(task.labels),
            "arguments": arguments,
            "env": env,
            "secrets": sorted([item.deploy_target, item.secret, item.key] for item in task.secrets),
            "shows": _said_to_show(arguments),
            "after": [] if always else sorted(task.upstream_task_ids),
            "if_promoted": task._pre_execute_hook is binding.skip_unless_promoted,
            "always": always,
            "cpu": resources.limits["cpu"],
            "memory": resources.limits["memory"],
            "accelerator": next(([name, int(count)] for name, count in extended.items()), None),
            "node_selector": dict(task.node_selector),
            "tolerations": [
                {key: value for key, value in item.to_dict().items() if value is not None} for item in task.tolerations
            ],
            "retries": task.retries,
            "retry_seconds": int(task.retry_delay.total_seconds()) if task.retries else None,
            "timeout_minutes": task.active_deadline_seconds // 60,
            "non_root": task.container_security_context.run_as_non_root,
            "writable": sorted([one.name, one.mount_path] for one in task.volume_mounts),
        }
        if always:
            assert task.upstream_task_ids == set(dag.task_ids) - {task.task_id}
    schema = {name: dag.params.get_param(name) for name in dag.params}
    parameters = {name: [item.schema["type"], item.value] for name, item in schema.items()}
    return {"name": dag.dag_id, "parameters": parameters, "tasks": tasks}


def _airflow_text(text: str) -> str:
    text = text.replace("{{ dag.dag_id }}-{{ run_id }}", RUN).replace("/airflow/xcom/return.json", FILE)
    text = re.sub(r"\{\{ ti\.xcom_pull\(task_ids='([^']+)'\) \}\}", r"<pointer \1>", text)
    text = re.sub(r"\{\{ params\['([^']+)'\](?: \| tojson)? \}\}", r"<parameter \1>", text)
    return re.sub(r"\{\{ '([^']*)' \}\}", r"\1", text)


if __name__ == "__main__":
    kind, recipe, deployment, file = sys.argv[1], *(Path(item) for item in sys.argv[2:5])
    found = {
        "line": lambda: of_line(recipe, deployment),
        "kubeflow": lambda: of_kubeflow(file),
        "airflow": lambda: of_airflow(file),
    }[kind]()
    sys.stdout.write(json.dumps(found))
