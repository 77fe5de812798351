"""``airflow standalone``: scheduler, workers, triggerer and web server in one process group, and its REST API."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from environments import airflow_python

_READY_SECONDS = 180
_ENDED = {"success", "failed"}


class AirflowServer:
    """One home folder, in which Airflow can be started, killed and started again.

    Args:
        home: Becomes AIRFLOW_HOME; the DAG files lie in its folder ``dags``.
        variables: Environment variables besides.
    """

    def __init__(self, home: Path, variables: Mapping[str, str]) -> None:
        self.home = home
        self._port = _free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self._environment = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.address}/execution/",
            "AIRFLOW__API__PORT": str(self._port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": self.address,
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            # A worker that is gone is noticed after seconds; the default is five minutes.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "PATH": f"{airflow_python().parent}{os.pathsep}{os.environ.get('PATH', '')}",
            **variables,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""

    def start(self) -> None:
        """Start all of it and wait until it answers."""
        with (self.home / "standalone.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(airflow_python()), "-m", "airflow", "standalone"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait(self._healthy, "an answer", _READY_SECONDS)
        self._token = str(self.ask("GET", "/auth/token")["access_token"])

    def _healthy(self) -> bool:
        try:
            told = self.ask("GET", "/api/v2/monitor/health")
        except (OSError, RuntimeError):
            return False
        return all(told[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))

    def kill(self) -> None:
        """End all of it at once, as a machine that loses power does."""
        if self._process is not None:
            # Its parts are sessions of their own, and outlive their parents.
            for pid in [*_descendants(self._process.pid), self._process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What the API answers.

        Raises:
            RuntimeError: It answers with an error, whose text is the exception's.
        """
        request = urllib.request.Request(
            self.address + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as problem:
            msg = f"{problem.code}: {problem.read().decode()}"
            raise RuntimeError(msg) from None

    def wait(self, found: Callable[[], Any], what: str, seconds: float = 300) -> Any:
        """Ask until the answer is true; the answer."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if answer := found():
                return answer
            time.sleep(0.5)
        log = (self.home / "standalone.log").read_text(errors="replace")
        msg = f"no {what} after {seconds} s\n{log[-6000:]}"
        raise AssertionError(msg)

    def trigger(self, dag: str, conf: Mapping[str, Any]) -> str:
        """Start a run as the form does; its id."""
        body = {"logical_date": None, "conf": dict(conf)}
        return str(self.ask("POST", f"/api/v2/dags/{dag}/dagRuns", body)["dag_run_id"])

    def state(self, dag: str, run: str, task: str) -> str | None:
        """A task's state."""
        told = self.ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}")
        return told["state"] and str(told["state"])

    def ended(self, dag: str, run: str, seconds: float = 600) -> str:
        """How a run ended, once it has."""

        def state() -> str | None:
            told = str(self.ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")["state"])
            return told if told in _ENDED else None

        return str(self.wait(state, f"end of {run}", seconds))

    def log(self, dag: str, run: str, task: str, attempt: int = 1) -> str:
        """A task's log with all that is known of each line."""
        told = self.ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/{attempt}")
        return "\n".join(json.dumps(line) for line in told["content"])


@contextmanager
def airflow_server(home: Path, variables: Mapping[str, str]) -> Iterator[AirflowServer]:
    """A server that is running, and killed at the end."""
    server = AirflowServer(home, variables)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _descendants(pid: int) -> list[int]:
    """A process's children and theirs; each thread has children of its own."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in listed.read_text().split():
                found += [*_descendants(int(child)), int(child)]
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
