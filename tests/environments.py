"""The Pythons of environments of their own: Airflow's (kfp wants another client), optimum's, Triton's and MLflow's."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def airflow_python() -> Path:
    """``.venv-airflow/bin/python``; a test without it is skipped, or fails under MODELMILL_REQUIRE_ALL=1."""
    return _python("airflow", "Airflow")


def optimum_python() -> Path:
    """``.venv-optimum/bin/python``; a test without it is skipped, or fails under MODELMILL_REQUIRE_ALL=1."""
    return _python("optimum", "optimum")


def triton_python() -> Path:
    """``.venv-triton/bin/python``; a test without it is skipped, or fails under MODELMILL_REQUIRE_ALL=1."""
    return _python("triton", "Triton")


def mlflow_python() -> Path:
    """``.venv-mlflow/bin/python``; a test without it is skipped, or fails under MODELMILL_REQUIRE_ALL=1."""
    return _python("mlflow", "MLflow")


def _python(name: str, words: str) -> Path:
    default = ROOT / f".venv-{name}" / "bin" / "python"
    python = Path(os.environ.get(f"MODELMILL_{name.upper()}_PYTHON", default))
    if not python.is_file():
        reason = f"{words}'s environment is not there ({python}): make install-{name}"
        if os.environ.get("MODELMILL_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return python


def airflow_environment(home: Path, **variables: str) -> dict[str, str]:
    """What Airflow runs in: a home, a DAGs folder in it, this source, and a cluster that does not answer.

    Args:
        home: Becomes AIRFLOW_HOME.
        variables: Environment variables besides.
    """
    (home / "dags").mkdir(parents=True, exist_ok=True)
    # The provider reads a configuration before it builds a pod.
    (home / "kubeconfig").write_text(json.dumps(kubeconfig("http://127.0.0.1:9")), "utf-8")
    return {
        **os.environ,
        "KUBECONFIG": str(home / "kubeconfig"),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "PYTHONPATH": f"{ROOT / 'components'}:{ROOT / 'tests'}",
        **variables,
    }


def in_airflow(script: Path, *arguments: str | Path, home: Path, **variables: str) -> Any:
    """Run a script with Airflow; the JSON it prints.

    Args:
        script: A Python file.
        arguments: Its arguments.
        home: Becomes AIRFLOW_HOME.
        variables: Environment variables besides.
    """
    return asked_airflow(script, *arguments, environment=airflow_environment(home, **variables))[0]


def asked_airflow(
    script: Path, *arguments: str | Path, environment: dict[str, str], timeout: float = 300
) -> tuple[Any, str]:
    """Run a script with Airflow; the JSON it prints and what it wrote to stderr."""
    command = [str(airflow_python()), str(script), *(str(item) for item in arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=timeout)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(ended.stdout.strip().splitlines()[-1]), ended.stderr


def kubeconfig(server: str) -> dict[str, Any]:
    """A Kubernetes configuration that names one server and no user."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "none"}}],
        "users": [{"name": "none", "user": {}}],
    }
