"""Run one container that takes all memory it gets, as an Airflow worker would; print how it ended.

``python exhaust_in_airflow.py IMAGE``
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from airflow.sdk.exceptions import AirflowException

from modelmill.runners import engine
from modelmill.runners.airflow_docker import StepDockerOperator


def ended(image: str) -> dict[str, Any]:
    """How it ended."""
    with engine.engine() as address:
        task = StepDockerOperator(
            task_id="greedy",
            store="s3://models/line",
            secret_names=[],
            memory="48Mi",
            image=image,
            command=["tail", "/dev/zero"],
            mem_limit=48 << 20,
            docker_url=address,
            network_mode="host",
            mount_tmp_dir=False,
            auto_remove="force",
        )
        try:
            task.execute({})
        except AirflowException as problem:
            return {"kind": type(problem).__name__, "said": str(problem)}
    return {"kind": "", "said": ""}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        found = ended(sys.argv[1])
    sys.stdout.write(json.dumps(found))
