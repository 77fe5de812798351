"""The DAG on this machine: Airflow's own code in an environment of its own, containers on this machine's engine.

Airflow and kfp cannot share an environment, so the DAG runs in another Python; the two exchange JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from modelmill.core.cache import cache_directory
from modelmill.core.errors import OutsideError, UsageError
from modelmill.core.progress import Progress, SilentProgress
from modelmill.core.store import Store
from modelmill.line import Job
from modelmill.runners import sight
from modelmill.runners.conclusion import ended
from modelmill.runners.process import StepOutcome
from modelmill.runners.result import RunDocument, safe_name

PYTHON_VARIABLE = "MODELMILL_AIRFLOW_PYTHON"
REQUEST, RESULT = "request.json", "result.json"
_PROCESS = "modelmill.runners.airflow_process"
_DAG_FILE = '''"""The DAG of the recipe that this run was asked for."""

from pathlib import Path

from modelmill.runners.airflow_process import dag_from

line = dag_from(Path(__file__).parents[1] / "request.json")
'''
_DATABASE = "airflow.db"
_CONTAINERS_LINE = re.compile(r"\S+ \[\w+\s*\] (.*?)\s*\[airflow\.task\.operators\.\S*StepDockerOperator\] loc=")
"""A line of Airflow's log that passes on what a container said."""
_ENDING_SECONDS = 60


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
    with sight.on_this_machine(job, store) as here, tempfile.TemporaryDirectory(prefix="modelmill-airflow-") as work:
        folder = Path(work)
        request = {
            "located": here.located.model_dump(mode="json"),
            "deployment": here.deployment.model_dump(mode="json"),
        }
        (folder / REQUEST).write_text(json.dumps(request), "utf-8")
        (folder / "dags").mkdir()
        (folder / "dags" / "line.py").write_text(_DAG_FILE, "utf-8")
        log = cache_directory() / f"airflow-{os.getpid()}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        progress.fact(f"the DAG runs with {python}; all that Airflow says is in {log}")
        environment = {**os.environ, **_settings(folder)}
        _database(python, folder, environment, log)
        _wait([str(python), "-m", _PROCESS, str(folder)], environment, log, progress)
        result = folder / RESULT
        if not result.is_file():
            what = "the DAG did not run to its end"
            raise OutsideError(what, where=str(log), fix="the end of that file says why")
        told = json.loads(result.read_text("utf-8"))
    StepOutcome(error=told.get("error")).raise_error()
    document = ended(store, safe_name(told["run"]))
    # What failed stays to be looked at.
    log.unlink()
    return document


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
    """Run Airflow to its end; what it says is kept, and what the containers say is told."""
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, env=dict(environment), text=True
    )
    assert child.stdout is not None
    try:
        with log.open("a", encoding="utf-8") as kept:
            for line in child.stdout:
                kept.write(line)
                if said := _CONTAINERS_LINE.match(line):
                    progress.fact(said[1])
        return child.wait()
    except KeyboardInterrupt:
        # It got the same signal, and removes its container before it ends.
        child.wait(_ENDING_SECONDS)
        raise
    finally:
        child.kill()
        child.stdout.close()


def airflow_python() -> Path:
    """The Python that has Airflow.

    Raises:
        UsageError: There is none.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        if not os.access(named, os.X_OK):
            what = f"{named} is no program"
            raise UsageError(
                what, where=PYTHON_VARIABLE, fix="name the Python of an environment with modelmill[airflow]"
            )
        return Path(named)
    if _has_airflow():
        return Path(sys.executable)
    beside = Path(sys.prefix).with_name(".venv-airflow") / "bin" / "python"
    if not beside.is_file():
        what = "running the DAG here needs Airflow, in an environment of its own"
        fix = f"make install-airflow, or let {PYTHON_VARIABLE} name a Python with modelmill[airflow] installed"
        raise UsageError(what, fix=fix)
    return beside


def _has_airflow() -> bool:
    try:
        metadata.version("apache-airflow-providers-docker")
    except metadata.PackageNotFoundError:
        return False
    return True
