"""modelmill in DAGs of your own: one step as a task, or a recipe's whole line as a group of tasks.

Importing this module imports Airflow and its Kubernetes provider.
"""

from __future__ import annotations

from modelmill.runners.airflow import dag_of, params_of, task_group
from modelmill.runners.airflow_folder import dags_of
from modelmill.runners.airflow_step import step

__all__ = ["dag_of", "dags_of", "params_of", "step", "task_group"]
