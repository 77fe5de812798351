"""Change one thing of a DAG's tasks at a time, and print which changes the normal form does not show."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from normal_form import dags_in, of_airflow, of_dag

DIFFERENCES: dict[str, Callable[[Any], object]] = {
    "image": lambda task: setattr(task, "image", "other"),
    "pull policy": lambda task: setattr(task, "image_pull_policy", "Always"),
    "label": lambda task: task.labels.clear(),
    "one argument": lambda task: task.cmds.pop(4),
    "one input": lambda task: task.cmds.__setitem__(-3, task.cmds[-3].replace("#", "#x")),
    "one variable": lambda task: task.env_vars.popitem(),
    "one secret": lambda task: task.secrets.pop(),
    "cpu": lambda task: (
        task.container_resources.limits.update(cpu="9"),
        task.container_resources.requests.update(cpu="9"),
    ),
    "node selector": lambda task: task.node_selector.clear(),
    "tolerations": lambda task: task.tolerations.clear(),
    "retries": lambda task: setattr(task, "retries", 7),
    "time-out": lambda task: setattr(task, "active_deadline_seconds", 60),
    "root": lambda task: setattr(task.container_security_context, "run_as_non_root", None),
    "writable folder": lambda task: task.volume_mounts.pop(),
    "condition": lambda task: setattr(task, "_pre_execute_hook", print),
    "what is shown": lambda task: task.dag.get_task("finish").cmds.remove("report"),
    "where it is shown": lambda task: task.dag.get_task("finish").cmds.__setitem__(-3, "elsewhere"),
    "edge": lambda task: task.upstream_task_ids.pop(),
}
"""Planted in ``publish``, which has one of everything that it does not show."""


def main(dag_file: Path) -> None:
    """Print the names of unseen differences as a JSON list, and how many were planted."""
    whole = of_airflow(dag_file)
    unseen = []
    for name, plant in DIFFERENCES.items():
        (dag,) = dags_in(dag_file).values()
        plant(dag.get_task("publish"))
        if of_dag(dag) == whole:
            unseen.append(name)
    sys.stdout.write(json.dumps({"planted": len(DIFFERENCES), "unseen": unseen}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
