"""Run DAGs of a DAG file in Airflow's environment, deferral and all, and print as JSON what became of their tasks.

``python run_in_airflow.py DAG_FILE DAG_ID...``: DAG_FILE lies in the DAGs folder that Airflow is configured for. The
tasks' own log goes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from normal_form import dags_in


def run(dag: Any) -> dict[str, Any]:
    """Run one DAG by hand."""
    ended = dag.test()
    with create_session() as session:
        rows = session.scalars(select(XComModel).where(XComModel.run_id == ended.run_id))
        told = [[row.task_id, row.key, row.value] for row in rows]
        tasks = {item.task_id: [str(item.state), item.try_number] for item in ended.get_task_instances(session=session)}
    return {"run": f"{dag.dag_id}-{ended.run_id}", "state": str(ended.state), "tasks": tasks, "told": told}


def main(dag_file: Path, names: list[str]) -> None:
    """Run the DAGs one after the other."""
    with contextlib.redirect_stdout(sys.stderr):
        dags = dags_in(dag_file)
        found = {name: run(dags[name]) for name in names}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
