"""A recipe's whole line in a DAG of your own: after a task that makes the data, before one that tells people."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import DAG, task

from modelmill import deployment as deployments
from modelmill import recipe as recipes
from modelmill.airflow import params_of, task_group

DEPLOYMENT = deployments.load(Path(os.environ["MODELMILL_DEPLOYMENT"]))
RECIPE = recipes.load(Path(os.environ["MODELMILL_RECIPE_FILE"]))


@task
def refresh() -> None:
    """Yours: write the rows where the recipe's data.source looks for them."""


@task(trigger_rule="all_done")
def tell(status: str) -> str:
    """Yours: a message to whoever waits. The line's last task says how it ended."""
    return f"{RECIPE.recipe.name}: {status}"


with DAG(
    "nightly-line", schedule="0 3 * * *", catchup=False, params=params_of(RECIPE, DEPLOYMENT), tags=["modelmill"]
) as dag:
    line = task_group(RECIPE, DEPLOYMENT)
    refresh() >> line
    tell(dag.get_task("finish").output)
