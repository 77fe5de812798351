"""A real MLflow server on loopback, with its own log-in, in a directory thrown away."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from environments import mlflow_python
from modelmill.steps.publish.mirror import MirrorCredentials

READY_SECONDS = 120
_USER = "admin"


@dataclass(frozen=True)
class Mlflow:
    """A running server and who may write there."""

    address: str
    password: str
    python: Path

    @property
    def environment(self) -> dict[str, str]:
        """What MLflow's own client reads."""
        return {
            "MLFLOW_TRACKING_URI": self.address,
            "MLFLOW_TRACKING_USERNAME": _USER,
            "MLFLOW_TRACKING_PASSWORD": self.password,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }

    @property
    def credentials(self) -> MirrorCredentials:
        """What modelmill is given."""
        return MirrorCredentials(mlflow_username=_USER, mlflow_password=self.password)

    @property
    def variables(self) -> dict[str, str]:
        """The same as environment variables."""
        return {"MODELMILL_MIRROR_MLFLOW_USERNAME": _USER, "MODELMILL_MIRROR_MLFLOW_PASSWORD": self.password}

    def ask(self, code: str, environment: Mapping[str, str] | None = None) -> Any:
        """What MLflow's own client finds: ``code`` has it as ``client``, and leaves its answer in ``found``."""
        script = f"import json, sys, mlflow\nclient = mlflow.MlflowClient()\n{code}\nprint(json.dumps(found))"
        given = {**os.environ, **self.environment, **(environment or {})}
        done = subprocess.run(
            [self.python, "-c", script], env=given, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def mlflow_server(directory: Path) -> Iterator[Mlflow]:
    """Start the server; a test is skipped, or fails under MODELMILL_REQUIRE_ALL=1, where it is not installed."""
    python = mlflow_python()
    directory.mkdir(parents=True)
    password = secrets.token_hex(12)
    (directory / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = sqlite:///{directory}/auth.db\nadmin_username = {_USER}\nadmin_password = {password}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        "utf-8",
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))},
        "MLFLOW_AUTH_CONFIG_PATH": str(directory / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(12),
        # Eight processes that no registry needs.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }
    environment.pop("PYTHONPATH", None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["server", "--app-name", "basic-auth", "--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
    words += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            [python, "-m", "mlflow", *words],
            cwd=directory,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, port, directory / "log")
        yield Mlflow(f"http://127.0.0.1:{port}", password, python)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"MLflow did not start: {log.read_text('utf-8')[-2000:]}")
