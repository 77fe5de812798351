"""One run of the line's DAG, in a process with Airflow: the other side of `modelmill.runners.airflow_local`.

``python -m modelmill.runners.airflow_process FOLDER`` reads FOLDER/request.json and writes FOLDER/result.json; the
environment variables that Airflow reads, and the engine's, are set by who starts it. The file descriptor that one of
them names closes when that one is gone.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from modelmill.core.errors import ModelmillError
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.recipe import Located
from modelmill.runners.airflow import dag_of
from modelmill.runners.airflow_local import LIFELINE_VARIABLE, REQUEST, RESULT
from modelmill.runners.process import end_with_parent, error_document


def dag_from(request: Path) -> Any:
    """The DAG of a request."""
    job = _job(request)
    return dag_of(job.located, job.deployment)


def _job(request: Path) -> Job:
    asked = json.loads(request.read_text("utf-8"))
    return Job(Located.model_validate(asked["located"]), Deployment.model_validate(asked["deployment"]))


def main(folder: Path) -> None:
    """Run the DAG of the request to its end."""
    job = _job(folder / REQUEST)
    told: dict[str, Any]
    try:
        dag = dag_of(job.located, job.deployment)
        run = dag.test()
        told = {"run": f"{dag.dag_id}-{run.run_id}"}
    except ModelmillError as error:
        told = {"error": error_document(error)}
    (folder / RESULT).write_text(json.dumps(told), "utf-8")


if __name__ == "__main__":
    end_with_parent(int(os.environ[LIFELINE_VARIABLE]))
    main(Path(sys.argv[1]))
