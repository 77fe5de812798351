"""One DAG for each recipe in MODELMILL_RECIPES (a folder), run as MODELMILL_DEPLOYMENT (a file) says.

Airflow finds the DAGs in this file's globals. MODELMILL_SCHEDULE, a cron expression, starts all of them.
"""

import os
from pathlib import Path

from modelmill.runners.airflow import dags_of

_deployment = os.environ.get("MODELMILL_DEPLOYMENT")
globals().update(
    dags_of(
        Path(os.environ.get("MODELMILL_RECIPES", Path(__file__).parent / "recipes")),
        Path(_deployment) if _deployment else None,
        schedule=os.environ.get("MODELMILL_SCHEDULE"),
    )
)
