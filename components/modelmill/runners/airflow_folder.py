"""A folder of recipes as DAGs, for a DAG file: what is wrong with one of them stays its own.

Importing this module imports Airflow and its Kubernetes provider.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.timetables.base import TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable

from modelmill import deployment as deployments
from modelmill import recipe as recipes
from modelmill.core.errors import ModelmillError, RecipeError, UsageError
from modelmill.runners.airflow import dag_of
from modelmill.runners.containers import BEGIN
from modelmill.runners.result import safe_name

_log = logging.getLogger(__name__)
RECIPES_VARIABLE = "MODELMILL_RECIPES"
"""Names the folder of recipes."""
DEPLOYMENT_VARIABLE = "MODELMILL_DEPLOYMENT"
"""Names the deployment's file."""
SCHEDULE_VARIABLE = "MODELMILL_SCHEDULE"
"""Says when all of the recipes run."""
_SUFFIXES = {".yaml", ".yml"}
_WORDS = {"@once", "@continuous"}
"""Airflow's own that are no cron expressions in short."""


def dags_of_environment(variables: Mapping[str, str], folder: Path) -> dict[str, DAG]:
    """The DAGs that a DAG file's environment asks for.

    Args:
        variables: The environment. A variable that is empty is as one that is not there.
        folder: Of the recipes, where no variable names one.

    Raises:
        UsageError: The folder is not there.
        DeploymentError: The deployment is wrong.
    """
    deployment = variables.get(DEPLOYMENT_VARIABLE)
    named = variables.get(RECIPES_VARIABLE)
    return dags_of(
        Path(named) if named else folder,
        Path(deployment) if deployment else None,
        schedule=variables.get(SCHEDULE_VARIABLE),
    )


def dags_of(
    folder: Path, deployment: Path | None = None, *, schedule: str | None = None, **settings: Any
) -> dict[str, DAG]:
    """One DAG for each recipe in a folder; one that is wrong takes none of the others with it.

    Args:
        folder: Holds recipes as .yaml or .yml.
        deployment: The deployment's YAML file.
        schedule: A cron expression, or a word of Airflow's such as @daily; nothing, or an empty text, for starts by
            hand alone.
        settings: As `dag_of` takes them.

    Returns:
        DAG id → DAG, for a DAG file to add to its globals. A wrong recipe is a DAG of its file's name that says what
        is wrong as soon as it is started, and so is the second of two recipes of one name. A wrong schedule is such a
        DAG, too; the recipes' own can then be started by hand.

    Raises:
        UsageError: The folder is not there.
        DeploymentError: The deployment is wrong.
    """
    deployed = deployments.load(deployment)
    found: dict[str, DAG] = {}
    wrong: list[tuple[str, str]] = []
    when = (schedule or "").strip() or None
    if when:
        try:
            _check_schedule(when)
        except UsageError as problem:
            when = None
            wrong.append((SCHEDULE_VARIABLE, str(problem)))
    files: dict[str, Path] = {}
    for path in _recipes_in(folder):
        try:
            located = recipes.load(path)
            name = located.recipe.name
            if name in files:
                what = f"the name {name!r} is that of {files[name].name}, too, and a name is one DAG"
                raise RecipeError(what, where=f"{path}: name", fix="give one of the two recipes another name")
            found[name] = dag_of(located, deployed, schedule=when, **settings)
            files[name] = path
        except ModelmillError as problem:
            wrong.append((path.stem, str(problem)))
        # Whatever Airflow or a provider finds wrong with one recipe's DAG, it is no reason to have none of the others.
        except Exception as problem:
            _log.exception("%s cannot be made a DAG", path)
            wrong.append((path.stem, f"{path} cannot be made a DAG: {type(problem).__name__}: {problem}"))
    for name, told in wrong:
        id = _free(name, found)
        found[id] = _broken(id, told)
    return found


def _recipes_in(folder: Path) -> list[Path]:
    fix = f"have {RECIPES_VARIABLE} name the folder of recipes, and mount it where DAGs are parsed"
    if not folder.is_dir():
        what = f"there is no folder of recipes {folder}"
        raise UsageError(what, where=RECIPES_VARIABLE, fix=fix)
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    except OSError as problem:
        what = f"the folder of recipes {folder} cannot be read: {problem.strerror}"
        raise UsageError(what, where=RECIPES_VARIABLE, fix=fix) from None


def _check_schedule(text: str) -> None:
    if text in _WORDS:
        return
    # What Airflow itself makes of such a text.
    cron = CronTriggerTimetable(text, timezone="UTC")
    try:
        cron.validate()
        # Airflow takes the 31st of February, and its scheduler then fails on it.
        cron.next_dagrun_info(last_automated_data_interval=None, restriction=TimeRestriction(None, None, catchup=False))
    except (AirflowException, ValueError) as problem:
        what = f"the schedule {text!r} is none that Airflow knows ({problem}): no recipe is started by it"
        fix = "write five fields, as in '0 2 * * *', or @daily; leave it empty for starts by hand alone"
        raise UsageError(what, where=SCHEDULE_VARIABLE, fix=fix) from None


def _free(name: str, found: Mapping[str, DAG]) -> str:
    """An id for a DAG that says what is wrong, of letters that Airflow takes, and no other DAG's."""
    # A file's name may hold bytes that are no text.
    text = name.encode("utf-8", "replace").decode()
    id = f"{safe_name(text)}-is-wrong"
    if id not in found:
        return id
    # demo.yaml and demo.yml.
    number = next(number for number in range(2, len(found) + 3) if f"{id}-{number}" not in found)
    return f"{id}-{number}"


def _broken(id: str, told: str) -> DAG:
    """A DAG that says why a recipe has none; named by the file, since a wrong recipe may have no name."""
    told = told.encode("utf-8", "replace").decode()

    def say(context: Mapping[str, Any]) -> None:
        raise AirflowFailException(told)

    with DAG(dag_id=id, schedule=None, doc_md=f"```\n{told}\n```", tags=["modelmill", "wrong"]) as dag:
        BaseOperator(task_id=BEGIN, pre_execute=say)
    return dag
