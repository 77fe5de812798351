"""The DAG on this machine: Airflow's own code in an environment of its own, containers on this machine's engine.

Airflow and kfp cannot share an environment, so the DAG runs in another Python; the two exchange JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from modelmill.core import temporary
from modelmill.core.cache import cache_directory
from modelmill.core.errors import OutsideError, UsageError
from modelmill.core.progress import Progress, SilentProgress
from modelmill.core.store import Store
from modelmill.line import Job
from modelmill.runners import engine, owned, sight
from modelmill.runners.conclusion import ended, interrupted
from modelmill.runners.process import StepOutcome
from modelmill.runners.result import RunDocument, safe_name

PYTHON_VARIABLE = "MODELMILL_AIRFLOW_PYTHON"
REQUEST, RESULT = "request.json", "result.json"
LIFELINE_VARIABLE = "MODELMILL_LIFELINE"
_PROCESS = "modelmill.runners.airflow_process"
_DAG_FILE = '''"""The DAG of the recipe that this run was asked for."""

from pathlib import Path

from modelmill.runners.airflow_process import dag_from

line = dag_from(Path(__file__).parents[1] / "request.json")
'''
_DATABASE = "airflow.db"
_CONTAINERS_LINE = re.compile(r"\S+ \[\w+\s*\] (.*?)\s*\[airflow\.task\.operators\.\S*StepDockerOperator\] loc=")
"""A line of Airflow's log that passes on what a container said."""
_KEPT_LOGS = 5
_ASKED = (
    "import importlib.metadata, importlib.util as found; "
    "importlib.metadata.version('apache-airflow-providers-docker'); assert found.find_spec('modelmill')"
)
"""Fails in a Python that cannot run the DAG; asking does not load Airflow, which takes seconds."""


def run(job: Job, store: Store, progress: Progress) -> RunDocument:
    """Run a recipe's line as its DAG; each task is a container.

    Args:
        job: The recipe, and the deployment whose images and steps hold here, too.
        store: Where artifacts live.
        progress: Where to report to.

    Returns:
        The finished run: promoted, refused or inconclusive.

    Raises:
        UsageError: There is no Airflow.
        ModelmillError: As the task that failed raised it; OutsideError where the run left no record.
    """
    python = airflow_python()
    with (
        engine.engine() as address,
        sight.on_this_machine(job, store) as here,
        engine.client(address) as client,
        temporary.folder("airflow") as folder,
    ):
        here = sight.with_images(here, client)
        sight.check_binds(here, client)
        request = {
            "located": here.located.model_dump(mode="json"),
            "deployment": here.deployment.model_dump(mode="json"),
        }
        (folder / REQUEST).write_text(json.dumps(request), "utf-8")
        (folder / "dags").mkdir()
        (folder / "dags" / "line.py").write_text(_DAG_FILE, "utf-8")
        log = _log()
        progress.fact(f"the DAG runs with {python}; all that Airflow says is in {log}")
        try:
            with owned.owning(client):
                environment = {**os.environ, **_settings(folder)}
                _database(python, folder, environment, log)
                _wait([str(python), "-m", _PROCESS, str(folder)], environment, log, progress)
        except KeyboardInterrupt:
            interrupted(store, _run_in(folder))
            log.unlink(missing_ok=True)
            raise
        result = folder / RESULT
        if not result.is_file():
            what = "the DAG did not run to its end"
            raise OutsideError(what, where=str(log), fix="the end of that file says why")
        told = json.loads(result.read_text("utf-8"))
    StepOutcome(error=told.get("error")).raise_error()
    document = ended(store, safe_name(told["run"]), f"the end of {log}")
    # What failed stays to be looked at.
    log.unlink()
    return document


def _log() -> Path:
    """A file for what Airflow says, beside those of the last few runs that failed."""
    folder = cache_directory()
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("airflow-*.log"), key=lambda path: path.stat().st_mtime)[:-_KEPT_LOGS]:
        old.unlink(missing_ok=True)
    return folder / f"airflow-{os.getpid()}.log"


def _run_in(folder: Path) -> str | None:
    """The run's name in the store; Airflow, which gave it, was ended before it could say it."""
    with contextlib.closing(sqlite3.connect(folder / _DATABASE)) as database, contextlib.suppress(sqlite3.Error):
        for dag, run in database.execute("SELECT dag_id, run_id FROM dag_run"):
            return safe_name(f"{dag}-{run}")
    return None


def _settings(folder: Path) -> dict[str, str]:
    return {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / _DATABASE}",
    }


def _database(python: Path, folder: Path, environment: Mapping[str, str], log: Path) -> None:
    """An empty database of Airflow's: making one takes seven seconds, so that one is kept for each environment."""
    mark = hashlib.sha256(f"{python} {python.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    kept = cache_directory() / f"airflow-{mark}.db"
    if kept.is_file():
        shutil.copyfile(kept, folder / _DATABASE)
        return
    if _wait([str(python), "-m", "airflow", "db", "migrate"], environment, log, SilentProgress()) != 0:
        what = "Airflow's database could not be made"
        raise OutsideError(what, where=str(log), fix="the end of that file says why")
    whole = kept.with_name(f"{kept.name}.{os.getpid()}")
    shutil.copyfile(folder / _DATABASE, whole)
    whole.replace(kept)


def _wait(command: list[str], environment: Mapping[str, str], log: Path, progress: Progress) -> int:
    """Run Airflow to its end; what it says is kept, and what the containers say is told.

    The variable `LIFELINE_VARIABLE` names to it the descriptor of a pipe that closes when we are gone.
    """
    watched, held = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, held)
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environment, LIFELINE_VARIABLE: str(watched)},
            text=True,
            # Ctrl-C is ours to answer: Airflow takes it for a task that failed, and goes on with the next.
            process_group=0,
            pass_fds=(watched,),
        )
        os.close(watched)
        stack.callback(child.wait)
        stack.callback(child.kill)
        assert child.stdout is not None
        stack.callback(child.stdout.close)
        with log.open("a", encoding="utf-8") as kept:
            for line in child.stdout:
                kept.write(line)
                if said := _CONTAINERS_LINE.match(line):
                    progress.fact(said[1])
        return child.wait()


def airflow_python() -> Path:
    """The Python that has Airflow.

    Raises:
        UsageError: There is none.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        if not _runs_the_dag(named):
            what = f"{named} is no Python with Airflow, its Docker provider and modelmill"
            fix = "name the Python of an environment with modelmill[airflow]"
            raise UsageError(what, where=PYTHON_VARIABLE, fix=fix)
        return Path(named)
    if _has_airflow():
        return Path(sys.executable)
    beside = Path(sys.prefix).with_name(".venv-airflow") / "bin" / "python"
    if not beside.is_file():
        what = "running the DAG here needs Airflow, in an environment of its own"
        fix = f"make install-airflow, or let {PYTHON_VARIABLE} name a Python with modelmill[airflow] installed"
        raise UsageError(what, fix=fix)
    return beside


def _runs_the_dag(program: str) -> bool:
    try:
        return subprocess.run([program, "-c", _ASKED], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _has_airflow() -> bool:
    try:
        metadata.version("apache-airflow-providers-docker")
    except metadata.PackageNotFoundError:
        return False
    return True
