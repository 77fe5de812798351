"""One run of the line's DAG, in a process with Airflow: the other side of `modelmill.runners.airflow_local`.

``python -m modelmill.runners.airflow_process FOLDER`` reads FOLDER/request.json and writes FOLDER/result.json; the
environment variables that Airflow reads are set by who starts it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from modelmill.deployment import Deployment
from modelmill.recipe import Located
from modelmill.runners import engine
from modelmill.runners.airflow import dag_of
from modelmill.runners.airflow_local import REQUEST, RESULT


def dag_from(request: Path) -> Any:
    """The DAG of a request."""
    asked = json.loads(request.read_text("utf-8"))
    return dag_of(Located.model_validate(asked["located"]), Deployment.model_validate(asked["deployment"]))


def main(folder: Path) -> None:
    """Run the DAG of the request to its end."""
    with engine.engine():
        dag = dag_from(folder / REQUEST)
        run = dag.test()
    (folder / RESULT).write_text(json.dumps({"run": f"{dag.dag_id}-{run.run_id}"}), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
