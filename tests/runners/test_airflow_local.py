"""What the runner of the DAG on this machine asks for before it starts, and what it leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from environments import ROOT, airflow_environment, asked_airflow
from environments import airflow_python as airflows_own
from modelmill.core.errors import UsageError
from modelmill.runners import airflow_local
from podman import Podman


@pytest.mark.parametrize("named", ["/tmp", "/bin/true/no", "/bin/false", "no-such-python"])
def test_what_is_no_python_with_airflow_is_refused_by_name(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(airflow_local.PYTHON_VARIABLE, named)
    with pytest.raises(UsageError, match=named):
        airflow_local.airflow_python()


def test_a_python_without_airflow_is_refused_and_one_with_it_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = airflows_own()
    monkeypatch.setenv(airflow_local.PYTHON_VARIABLE, str(right))
    assert airflow_local.airflow_python() == right
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {right.resolve()} -S "$@"\n', "utf-8")
    bare.chmod(0o755)
    monkeypatch.setenv(airflow_local.PYTHON_VARIABLE, str(bare))
    with pytest.raises(UsageError, match="Docker provider"):
        airflow_local.airflow_python()


def test_a_container_that_runs_out_of_memory_is_said_to(podman: Podman, tmp_path: Path) -> None:
    script = ROOT / "tests" / "orchestrators" / "exhaust_in_airflow.py"
    environment = airflow_environment(tmp_path / "home")
    found, log = asked_airflow(script, podman.base(tmp_path), environment=environment)
    assert found["kind"] == "AirflowException"
    assert found["said"] == (
        "greedy was killed, with exit code 137, most likely for want of memory: it has memory 48Mi; "
        "give it more by steps.NAME.resources.memory in the deployment"
    )
    passed_on = [line[1] for line in map(airflow_local._CONTAINERS_LINE.match, log.splitlines()) if line]
    assert found["said"] in passed_on


def test_logs_of_failed_runs_do_not_pile_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELMILL_CACHE", str(tmp_path))
    for number in range(20):
        path = tmp_path / f"airflow-{number}.log"
        path.touch()
        os.utime(path, (number, number))
    airflow_local._log()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"airflow-{number}.log" for number in range(15, 20)]
