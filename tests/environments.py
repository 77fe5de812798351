"""The Python of Airflow's own environment, which kfp's cannot be: they want different Kubernetes clients."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


_NO_CLUSTER = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "none",
    "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:9"}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "users": [{"name": "none", "user": {}}],
}
"""The provider reads a configuration before it builds a pod; nothing answers at this one's address."""


def airflow_python() -> Path:
    """``.venv-airflow/bin/python``; a test without it is skipped, or fails under MODELMILL_REQUIRE_ALL=1."""
    python = Path(os.environ.get("MODELMILL_AIRFLOW_PYTHON", ROOT / ".venv-airflow" / "bin" / "python"))
    if not python.is_file():
        reason = f"Airflow's environment is not there ({python}): make install-airflow"
        if os.environ.get("MODELMILL_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return python


def in_airflow(script: Path, *arguments: str | Path, home: Path, **variables: str) -> Any:
    """Run a script with Airflow; the JSON it prints.

    Args:
        script: A Python file.
        arguments: Its arguments.
        home: Becomes AIRFLOW_HOME.
        variables: Environment variables besides.
    """
    home.mkdir(parents=True, exist_ok=True)
    (home / "kubeconfig").write_text(json.dumps(_NO_CLUSTER), "utf-8")
    environment = {
        **os.environ,
        "KUBECONFIG": str(home / "kubeconfig"),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": f"{ROOT / 'components'}:{ROOT / 'tests'}",
        **variables,
    }
    command = [str(airflow_python()), str(script), *(str(item) for item in arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(ended.stdout.strip().splitlines()[-1])
