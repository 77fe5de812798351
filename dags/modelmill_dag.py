"""One DAG for each recipe in MODELMILL_RECIPES (a folder), run as MODELMILL_DEPLOYMENT (a file) says.

Airflow finds the DAGs in this file's globals. MODELMILL_SCHEDULE, a cron expression, starts all of them.
"""

import os
from pathlib import Path

from modelmill.runners.airflow_folder import dags_of_environment

globals().update(dags_of_environment(os.environ, Path(__file__).parent / "recipes"))
