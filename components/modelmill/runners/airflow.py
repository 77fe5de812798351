"""The line as an Airflow DAG: a binding of `modelmill.runners.containers` to Airflow 3.

Importing this module imports Airflow and its Kubernetes provider; nothing else of modelmill does.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, Param, TaskGroup
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from modelmill import recipe as recipes
from modelmill.deployment import Backend, Deployment
from modelmill.line import Job
from modelmill.runners.containers import (
    BEGIN,
    DECIDE,
    FINISH,
    LOG,
    Argument,
    Container,
    Described,
    Given,
    Part,
    Pointer,
    PointerFile,
    RunName,
    ShowPlace,
    describe,
)
from modelmill.runners.notice import tell
from modelmill.runners.parameters import Parameter, for_cluster
from modelmill.runners.result import safe_name

_log = logging.getLogger(__name__)
RUN_NAME = "{{ dag.dag_id }}-{{ run_id }}"
_BACKENDS = {
    Backend.KUBERNETES: "modelmill.runners.airflow_pod",
    Backend.DOCKER: "modelmill.runners.airflow_docker",
}


def dag_of(located: recipes.Located, deployment: Deployment, *, schedule: str | None = None, **settings: Any) -> DAG:
    """The DAG of a recipe.

    Args:
        located: The recipe.
        deployment: Where it runs.
        schedule: A cron expression; None runs it by hand alone.
        settings: Further arguments of `airflow.sdk.DAG`; an ``on_failure_callback`` is called besides `tell_failure`.

    Raises:
        RecipeError: A source lies in the recipe's folder, which no pod has.
        DeploymentError: The deployment lacks what a step needs.
    """
    described = _described(located, deployment)
    own = settings.pop("on_failure_callback", None) or []
    with DAG(
        dag_id=described.name,
        description=described.summary,
        schedule=schedule,
        catchup=False,
        max_active_runs=1,
        params={item.name: _param(item) for item in described.parameters},
        doc_md=_words(described),
        tags=["modelmill"],
        on_failure_callback=[tell_failure, *(own if isinstance(own, list) else [own])],
        **settings,
    ) as dag:
        wire(described, located.recipe, deployment)
    return dag


def task_group(located: recipes.Located, deployment: Deployment, group_id: str | None = None) -> TaskGroup:
    """A recipe's line as a group in a DAG of your own, which must offer its parameters (`params_of`)."""
    described = _described(located, deployment)
    with TaskGroup(group_id or located.recipe.name, prefix_group_id=False) as group:
        wire(described, located.recipe, deployment)
    return group


def _described(located: recipes.Located, deployment: Deployment) -> Described:
    if deployment.backend is Backend.KUBERNETES:
        for_cluster(located)
    return describe(Job(located, deployment))


def params_of(located: recipes.Located, deployment: Deployment) -> dict[str, Param]:
    """The run-time fields of a recipe, as a DAG's params."""
    return {item.name: _param(item) for item in describe(Job(located, deployment)).parameters}


def wire(described: Described, recipe: recipes.Recipe, deployment: Deployment) -> dict[str, Any]:
    """Make the tasks in the DAG or group that is open."""
    made: dict[str, Any] = {}
    lanes: dict[str, TaskGroup] = {}
    for container in described.containers:
        asset = [_asset(recipe)] if container.only_if_promoted else []
        if container.lane is None:
            operator = operator_of(container, described, deployment, asset)
        else:
            if container.lane not in lanes:
                # Task ids stay those of the line, which names the lane itself. A group's id may hold no dot; capital
                # letters stand in no target's name, so that a.b and a__b stay two groups.
                group = f"lane-{container.lane.replace('.', '_DOT_')}"
                lanes[container.lane] = TaskGroup(group, group_display_name=container.lane, prefix_group_id=False)
            with lanes[container.lane]:
                operator = operator_of(container, described, deployment, asset)
        made[container.id] = operator
        for other in made if container.always else container.after:
            if other != container.id:
                made[other] >> operator
    return made


def _asset(recipe: recipes.Recipe) -> Asset:
    """What downstream DAGs wait for: a channel that has moved.

    Its name is its URI: Airflow activates one of two assets of one name, and the DAGs of the other never run again.
    """
    return Asset(uri=f"modelmill://{recipe.publish.model}/{recipe.publish.channel}")


class Template(str):
    """A text of a container's arguments that Airflow fills in; every other stays as it is."""


def operator_of(container: Container, described: Described, deployment: Deployment, outlets: list[Asset]) -> Any:
    """The task that runs a container, in the DAG or group that is open."""
    shared: dict[str, Any] = {
        "task_id": container.id,
        "doc_md": container.title,
        # A pod's own deadline counts from when it has a node; this one, from when it asks for one.
        "execution_timeout": timedelta(minutes=container.timeout_minutes + 2 * deployment.start_minutes + 5),
        "retries": 0 if container.always else container.retries,
        "retry_delay": timedelta(seconds=container.retry_seconds),
        "retry_exponential_backoff": True,
        "trigger_rule": "all_done" if container.always else "all_success",
        "pre_execute": _before(container, described),
        "outlets": outlets,
    }
    env = {name: _literal(value) for name, value in container.env.items()}
    # The provider of a backend that is not used need not be installed.
    backend = importlib.import_module(_BACKENDS[deployment.backend])
    command = [_text(argument, described, backend.POINTER_FILE) for argument in container.arguments]
    return backend.operator(container, deployment, command, env, **shared)


def _before(container: Container, described: Described) -> Any:
    if container.only_if_promoted:
        return skip_unless_promoted
    if container.id == BEGIN:
        return _Offered(frozenset(item.name for item in described.parameters))
    return None


def skip_unless_promoted(context: Mapping[str, Any]) -> None:
    """Skip a task where the lanes' verdicts do not promote: a refusal is a result, not a failure."""
    verdict = context["ti"].xcom_pull(task_ids=DECIDE)
    if verdict != "pass":
        what = f"the verdict is {verdict}"
        raise AirflowSkipException(what)


def tell_failure(context: Mapping[str, Any]) -> None:
    """Tell in Airflow's name that a run failed: `finish` says why, but says nothing where it could not start."""
    run = safe_name(f"{context['dag'].dag_id}-{context['run_id']}")
    problem = tell({"run": run, "status": "failed", "error": f"Airflow: {context.get('reason')}"})
    if problem:
        _log.warning(problem)


class _Offered:
    """Refuses a start with fields that the form does not offer."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def __call__(self, context: Mapping[str, Any]) -> None:
        for name in context["dag_run"].conf or {}:
            if name not in self._names:
                structural = name.split("_")[0] in recipes.structural_fields()
                what = f"the parameter {name!r} is " + (
                    "structural: it shapes the DAG itself. Change it in the recipe, and the DAG follows"
                    if structural
                    else f"none that this line has: {', '.join(sorted(self._names))}"
                )
                raise AirflowFailException(what)


def _param(item: Parameter) -> Param:
    return Param(item.default, type=item.type, title=item.path, description=item.description, **item.schema)


def _text(argument: Argument, described: Described, pointer_file: str) -> str:
    kinds = {item.name: item.type for item in described.parameters}

    def text(part: Part) -> str:
        match part:
            case Given(parameter):
                value = f"params[{parameter!r}]"
                return f"{{{{ {value} }}}}" if kinds[parameter] == "string" else f"{{{{ {value} | tojson }}}}"
            case Pointer(task):
                return f"{{{{ ti.xcom_pull(task_ids={task!r}) }}}}"
            case RunName():
                return RUN_NAME
            case PointerFile():
                return pointer_file
            case Template():
                return str(part)
            case ShowPlace():
                return LOG
            case _:
                return _literal(part)

    return "".join(text(part) for part in argument)


def _literal(text: str) -> str:
    """A text that Jinja leaves as it is."""
    return f"{{{{ {text!r} }}}}" if any(mark in text for mark in ("{{", "{%", "{#")) else text


def _words(described: Described) -> str:
    lanes = sorted({item.lane for item in described.containers if item.lane})
    return (
        f"# {described.name}\n\n{described.summary}. Lanes: {', '.join(lanes)}.\n\n"
        f"A start takes the recipe's run-time fields; what the store already holds is not done again. A model that the "
        f"gate refuses ends with `publish` skipped and `{FINISH}` done: its log names the report.\n"
    )
